#include "potstill/kernels/lane_order.h"

#include <cstring>

namespace potstill::kernels {
namespace {

struct BlockParts {
  size_t num_heads, num_words;  // fp16 numbers; words of four codes
};

BlockParts parts_of(DType dtype) {
  return {dtype == DType::kQ4_1 ? size_t{2} : size_t{1}, dtype == DType::kQ8_0 ? size_t{8} : size_t{4}};
}

}  // namespace

bool fits_lanes(const MatrixView& weight) {
  return is_block_quantized(weight.dtype) && has_kernels(weight.dtype) && weight.rows % kLaneGroup == 0 &&
         weight.order == RowOrder::kFile;
}

void put_into_lanes(const MatrixView& weight, int64_t group_begin, int64_t group_end, std::byte* out) {
  const auto [num_heads, num_words] = parts_of(weight.dtype);
  const auto num_blocks = static_cast<size_t>(weight.cols / kBlock);
  const size_t block_bytes = 2 * num_heads + 4 * num_words;
  constexpr auto kRows = static_cast<size_t>(kLaneGroup);
  for (int64_t group = group_begin; group < group_end; ++group) {
    std::byte* codes = out + 2 * num_heads * num_blocks * kRows;
    for (size_t r = 0; r < kRows; ++r) {
      const std::byte* row = weight.row(group * kLaneGroup + static_cast<int64_t>(r));
      for (size_t b = 0; b < num_blocks; ++b) {
        const std::byte* block = row + b * block_bytes;
        for (size_t h = 0; h < num_heads; ++h) {
          std::memcpy(out + 2 * ((h * num_blocks + b) * kRows + r), block + 2 * h, 2);
        }
        for (size_t w = 0; w < num_words; ++w) {
          std::memcpy(codes + 4 * ((b * num_words + w) * kRows + r), block + 2 * num_heads + 4 * w, 4);
        }
      }
    }
    out += kRows * weight.row_bytes;
  }
}

}  // namespace potstill::kernels
