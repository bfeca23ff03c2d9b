// Where things lie in a group of rows that lie side by side. In an unnamed namespace, as all that is compiled for an
// instruction set of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "potstill/kernels/matrix.h"

namespace potstill::kernels {
namespace {

// body.operator()<i>() for i in [kBegin, kEnd): what a loop indexes stays in registers, for the index is a constant
// from the start.
template <int kBegin, int kEnd, class Body>
inline __attribute__((always_inline)) void unroll(const Body& body) {
  if constexpr (kBegin < kEnd) {
    body.template operator()<kBegin>();
    unroll<kBegin + 1, kEnd>(body);
  }
}

// A group, as lane_order.h has it.
template <class Format>
struct LaneGroup {
  static constexpr int64_t kWords = Format::kFourBits ? 4 : 8;
  const std::byte* data;
  int64_t num_rows;

  // The group of a weight that has this row.
  LaneGroup(const MatrixView& weight, int64_t row)
      : LaneGroup(weight.row(row - row % weight.lane_group), weight.lane_group) {}
  LaneGroup(const std::byte* group, int64_t rows) : data(group), num_rows(rows) {}

  const std::byte* block(int64_t b) const { return data + b * num_rows * Format::kBytes; }
  // Of `row` and those after it: d, m, and word `word` of the codes.
  const std::byte* scales(int64_t b, int64_t row) const { return block(b) + 2 * row; }
  const std::byte* minima(int64_t b, int64_t row) const { return block(b) + 2 * (num_rows + row); }
  const std::byte* codes(int64_t b, int64_t word, int64_t row) const {
    return block(b) + Format::kCodes * num_rows + (word * num_rows + row) * 4;
  }

  // A row's block as it was in the file.
  void gather(int64_t b, int64_t row, std::byte* out) const {
    std::memcpy(out, scales(b, row), 2);
    if constexpr (Format::kHasMin) std::memcpy(out + 2, minima(b, row), 2);
    for (int64_t j = 0; j < kWords; ++j) std::memcpy(out + Format::kCodes + 4 * j, codes(b, j, row), 4);
  }
};

}  // namespace
}  // namespace potstill::kernels
