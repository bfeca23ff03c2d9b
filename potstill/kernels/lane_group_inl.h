// Where things lie in a group of rows that is in RowOrder::kLanes. In an unnamed namespace, as all that is compiled for
// an instruction set of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace potstill::kernels {
namespace {

// A group of sixteen rows in RowOrder::kLanes, as lane_order.h has it.
template <class Format>
struct LaneGroup {
  static constexpr int64_t kRows = 16, kWords = Format::kFourBits ? 4 : 8;
  const std::byte *scales, *minima, *codes;

  LaneGroup(const std::byte* group, int64_t num_blocks)
      : scales(group), minima(group + num_blocks * 2 * kRows), codes(group + num_blocks * Format::kCodes * kRows) {}
  const std::byte* scales_of(int64_t block) const { return scales + block * 2 * kRows; }
  const std::byte* minima_of(int64_t block) const { return minima + block * 2 * kRows; }
  const std::byte* codes_of(int64_t block) const { return codes + block * kWords * 4 * kRows; }

  // A row's block as it was in the file.
  void gather(int64_t block, int64_t lane, std::byte* out) const {
    std::memcpy(out, scales_of(block) + 2 * lane, 2);
    if constexpr (Format::kHasMin) std::memcpy(out + 2, minima_of(block) + 2 * lane, 2);
    for (int64_t j = 0; j < kWords; ++j) {
      std::memcpy(out + Format::kCodes + 4 * j, codes_of(block) + (j * kRows + lane) * 4, 4);
    }
  }
};

}  // namespace
}  // namespace potstill::kernels
