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

void ActivationBuffer::reset(const float* x, int64_t cols, int64_t num_rows, kernels::CodeWidth width) {
  planes_ = {.num_tokens = num_rows, .cols = cols, .values = x};
  if (cols % kBlock != 0) return;  // such weights are floats, which read the floats alone
  const auto values = static_cast<size_t>(num_rows * cols), blocks = values / kBlock;
  planes_.high = high_ = high_bytes_.reserve_for<int8_t>(values);
  planes_.low = low_ = width == kernels::CodeWidth::kFast ? nullptr : low_bytes_.reserve_for<int8_t>(values);
  planes_.scales = scales_ = scale_bytes_.reserve_for<float>(blocks);
  planes_.block_sums = block_sums_ = sum_bytes_.reserve_for<float>(blocks);
  planes_.offsets = offsets_ = offset_bytes_.reserve_for<int32_t>(blocks);
}

void ActivationBuffer::quantize(const kernels::KernelTable& table, int64_t row, int64_t begin, int64_t end) {
  const int64_t cols = planes_.cols, at = row * cols + begin;
  if (cols % kBlock != 0) return;
  table.quantize_row(planes_.values + at, end - begin, high_ + at, low_ == nullptr ? nullptr : low_ + at,
                     scales_ + at / kBlock, block_sums_ + at / kBlock, offsets_ + at / kBlock);
}

}  // namespace potstill::edge
