// Weights reordered for products that have rows in their lanes: what the file's order has to be turned into, block by
// block, lies ready, and a product reads the memory in one stretch.
#pragma once

#include <cstddef>
#include <cstdint>

#include "potstill/kernels/matrix.h"

namespace potstill::kernels {

constexpr int64_t kSmallestLaneGroup = 16;  // rows

// How many rows of a weight can lie side by side: a power of two, kSmallestLaneGroup to `most`, that divides the rows
// of a block-quantized weight in the file's order. 0: none.
int64_t lane_group_of(const MatrixView& weight, int64_t most);

// Writes the groups of rows [group_begin, group_end) of a weight in the file's order to `out`, which is the place of
// group_begin. A group takes the bytes that its rows take in the file, one block of all its rows after the other:
//   fp16 d [group];  Q4_1: fp16 m [group];  codes [words, group, 4 bytes]
// with the 4 (Q8_0: 8) words of a row's block as they lie in the file.
void put_into_lanes(const MatrixView& weight, int64_t lane_group, int64_t group_begin, int64_t group_end,
                    std::byte* out);

}  // namespace potstill::kernels
