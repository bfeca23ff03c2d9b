#include "potstill/edge/activation_buffer.h"

#include <cstdlib>
#include <new>

#include "potstill/base/checked_math.h"

namespace potstill::edge {

using kernels::kBlock;

std::byte* AlignedBytes::reserve(size_t bytes) {
  if (bytes > size_) {
    data_.reset(static_cast<std::byte*>(std::aligned_alloc(64, round_up<size_t>(bytes, 64))));
    if (data_ == nullptr) throw std::bad_alloc();
    size_ = bytes;
  }
  return data_.get();
}

void AlignedBytes::Free::operator()(std::byte* p) const { std::free(p); }

void ActivationBuffer::reset(const float* x, int64_t cols, int64_t num_rows, int64_t num_decoding,
                             kernels::CodeWidth width) {
  width_ = width;
  num_decoding_ = num_decoding;
  planes_ = {.num_tokens = num_rows, .cols = cols, .values = x};
  decoding_.resize(static_cast<size_t>(num_decoding));
  for (int64_t t = 0; t < num_decoding; ++t) decoding_[static_cast<size_t>(t)] = {x + t * cols, nullptr};
  if (cols % kBlock != 0) return;  // such weights are floats, which read the floats alone
  const int64_t num_units = kernels::num_activation_units(cols);
  if (num_decoding > 0) {
    units_ = unit_bytes_.reserve_for<kernels::ActivationUnit>(static_cast<size_t>(num_decoding * num_units));
    for (int64_t t = 0; t < num_decoding; ++t) decoding_[static_cast<size_t>(t)].units = units_ + t * num_units;
  }
  if (num_decoding == num_rows) return;
  const auto values = static_cast<size_t>(num_rows * cols), blocks = values / kBlock;
  planes_.high = high_ = high_bytes_.reserve_for<int8_t>(values);
  planes_.low = low_ = width == kernels::CodeWidth::kFast ? nullptr : low_bytes_.reserve_for<int8_t>(values);
  planes_.scales = scales_ = scale_bytes_.reserve_for<float>(blocks);
  planes_.block_sums = block_sums_ = sum_bytes_.reserve_for<float>(blocks);
}

void ActivationBuffer::quantize(const kernels::KernelTable& table, int64_t row, int64_t begin, int64_t end) {
  const int64_t cols = planes_.cols, at = row * cols + begin;
  if (cols % kBlock != 0) return;
  if (row < num_decoding_) {
    kernels::ActivationUnit* units = units_ + row * kernels::num_activation_units(cols) + begin / kernels::kUnitCols;
    return table.quantize_units(planes_.values + at, end - begin, width_, units);
  }
  table.quantize_row(planes_.values + at, end - begin, high_ + at, low_ == nullptr ? nullptr : low_ + at,
                     scales_ + at / kBlock, block_sums_ + at / kBlock);
}

}  // namespace potstill::edge
