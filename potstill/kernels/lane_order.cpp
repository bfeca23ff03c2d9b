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

int64_t lane_group_of(const MatrixView& weight, int64_t most) {
  if (!is_block_quantized(weight.dtype) || !has_kernels(weight.dtype) || weight.lane_group != 0) return 0;
  while (most >= kSmallestLaneGroup && weight.rows % most != 0) most /= 2;
  return most >= kSmallestLaneGroup ? most : 0;
}

void put_into_lanes(const MatrixView& weight, int64_t lane_group, int64_t group_begin, int64_t group_end,
                    std::byte* out) {
  const auto [num_heads, num_words] = parts_of(weight.dtype);
  const auto num_blocks = static_cast<size_t>(weight.cols / kBlock), rows = static_cast<size_t>(lane_group);
  const size_t block_bytes = 2 * num_heads + 4 * num_words;
  for (int64_t group = group_begin; group < group_end; ++group) {
    for (size_t r = 0; r < rows; ++r) {
      const std::byte* block = weight.row(group * lane_group + static_cast<int64_t>(r));
      std::byte* heads = out;
      for (size_t b = 0; b < num_blocks; ++b, block += block_bytes, heads += rows * block_bytes) {
        for (size_t h = 0; h < num_heads; ++h) std::memcpy(heads + 2 * (h * rows + r), block + 2 * h, 2);
        std::byte* codes = heads + 2 * num_heads * rows;
        for (size_t w = 0; w < num_words; ++w) {
          std::memcpy(codes + 4 * (w * rows + r), block + 2 * num_heads + 4 * w, 4);
        }
      }
    }
    out += rows * weight.row_bytes;
  }
}

}  // namespace potstill::kernels
