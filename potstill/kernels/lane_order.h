// Weights reordered for products that have rows in their lanes: what the file's order has to be turned into, block by
// block, lies ready.
#pragma once

#include <cstddef>
#include <cstdint>

#include "potstill/kernels/matrix.h"

namespace potstill::kernels {

constexpr int64_t kLaneGroup = 16;  // rows

// Whether a weight can lie in RowOrder::kLanes: block-quantized, groups of rows without remainder.
bool fits_lanes(const MatrixView& weight);

// Writes the groups of rows [group_begin, group_end) of a weight in RowOrder::kFile to `out`, which is the place of
// group_begin. A group takes the bytes that its rows take in the file:
//   fp16 d [blocks, 16];  Q4_1: fp16 m [blocks, 16];  codes [blocks, words, 16, 4 bytes]
// with the 4 (Q8_0: 8) words of a row's block as they lie in the file.
void put_into_lanes(const MatrixView& weight, int64_t group_begin, int64_t group_end, std::byte* out);

}  // namespace potstill::kernels
