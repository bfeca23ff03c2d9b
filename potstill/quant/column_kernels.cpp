#include "potstill/quant/column_kernels.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <memory>

// One body, three instruction sets; the loader picks. -ffp-contract=off (CMakeLists.txt) keeps their results equal.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__SANITIZE_ADDRESS__)
#define POTSTILL_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define POTSTILL_CLONES
#endif
#define POTSTILL_INLINE inline __attribute__((always_inline))

namespace potstill::quant {
namespace {

using Row = float[kLanes];  // one column of kLanes rows

// |w / scale| is bounded by this before it is rounded: a scale shrunk to a subnormal can make it large, and round_even
// holds to 2²² only. Far past every code and zero point.
constexpr float kMostSteps = 4096.0f;

// Shrink steps of the scale, as multiples of (largest magnitude / 8; / 128 with 8 bits): from a little above largest /
// 7 = 1.143, where nothing is clipped, down to where half of the range is given up for finer steps.
constexpr int kSteps = 58;
constexpr float kFirstStep = 1.15f, kStep = 0.0125f;

// Round half to even, for |x| < 2²²: adding 1.5 · 2²³ leaves no room for a fraction.
POTSTILL_INLINE float round_even(float x) { return (x + 12582912.0f) - 12582912.0f; }

// To the nearest fp16 value (half to even), kept finite and off zero so that it can be divided by.
POTSTILL_INLINE float round_to_half(float x) {
  const float magnitude = std::fabs(x);
  const uint32_t bits = std::bit_cast<uint32_t>(magnitude);
  // 13 of the 23 fraction bits go; below 2⁻¹⁴ fp16 is a fixed-point number of step 2⁻²⁴, which is the step at 0.75.
  const float normal = std::bit_cast<float>((bits + 0xFFFu + ((bits >> 13) & 1u)) & ~0x1FFFu);
  const float subnormal = (magnitude + 0.75f) - 0.75f;
  const float rounded = magnitude < 6.103515625e-05f ? subnormal : normal;
  const float bounded = std::min(std::max(rounded, 5.9604644775390625e-08f), 65504.0f);
  return std::copysign(bounded, x);
}

POTSTILL_INLINE float to_code(float steps, float zero, CodeRange range) {
  return std::min(std::max(round_even(steps) + zero, range.min), range.max);
}

// Weighted squared error of a group on the grid (scale, zero), added up over its columns.
POTSTILL_INLINE void group_error(const Row* weights, const float* importance, int64_t n, const Row& scale,
                                 const Row& zero, CodeRange range, Row& error) {
  Row inverse;
  for (int64_t r = 0; r < kLanes; ++r) inverse[r] = 1.0f / scale[r], error[r] = 0.0f;
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t r = 0; r < kLanes; ++r) {
      const float w = weights[j][r];
      const float steps = std::min(std::max(w * inverse[r], -kMostSteps), kMostSteps);
      const float d = w - (to_code(steps, zero[r], range) - zero[r]) * scale[r];
      error[r] += importance[j] * (d * d);
    }
  }
}

POTSTILL_INLINE void keep_better(const Row& error, const Row& scale, const Row& zero, Row& best_error, Row& best_scale,
                                 Row& best_zero) {
  for (int64_t r = 0; r < kLanes; ++r) {
    const bool better = error[r] < best_error[r];  // ties stay with the earlier candidate: the larger scale
    best_error[r] = better ? error[r] : best_error[r];
    best_scale[r] = better ? scale[r] : best_scale[r];
    best_zero[r] = better ? zero[r] : best_zero[r];
  }
}

// A grid for weights [n][kLanes] of one group.
POTSTILL_INLINE void choose_group(const Row* weights, const float* importance, int64_t n, const ScaleSearch& search,
                                  Row& scale, Row& zero) {
  const CodeRange range = search.range;
  const float most_steps = range.max - range.min;  // of an asymmetric grid
  Row low, high;                                   // zero always lies on the grid
  for (int64_t r = 0; r < kLanes; ++r) low[r] = high[r] = 0.0f;
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t r = 0; r < kLanes; ++r) {
      low[r] = std::min(low[r], weights[j][r]);
      high[r] = std::max(high[r], weights[j][r]);
    }
  }
  Row reach;  // the range that all steps (asymmetric) or the larger side (symmetric) must cover; all-zero groups get 1
  for (int64_t r = 0; r < kLanes; ++r) {
    reach[r] = search.symmetric ? std::max(-low[r], high[r]) : high[r] - low[r];
    reach[r] = reach[r] > 0.0f ? reach[r] : 1.0f;
    scale[r] = round_to_half(reach[r] / (search.symmetric ? range.max : most_steps));
    zero[r] = search.symmetric ? 0.0f : range.min - round_even(std::max(low[r] / scale[r], -most_steps));
  }
  if (search.clip == Clip::kNone) return;
  Row best_error;
  group_error(weights, importance, n, scale, zero, range, best_error);
  for (int step = 0; step < kSteps; ++step) {
    const float shrink = kFirstStep - kStep * static_cast<float>(step);
    for (const float sign : {1.0f, -1.0f}) {  // −: the positive extreme may lie on the least code, which has no twin
      if (!search.symmetric && sign < 0.0f) continue;
      Row candidate, candidate_zero, error;
      for (int64_t r = 0; r < kLanes; ++r) {
        candidate[r] = round_to_half(sign * shrink * reach[r] / (search.symmetric ? -range.min : most_steps));
        candidate_zero[r] =
            search.symmetric
                ? 0.0f
                : std::min(range.min - round_even(std::max(low[r] * shrink / candidate[r], -most_steps)), range.max);
      }
      group_error(weights, importance, n, candidate, candidate_zero, range, error);
      keep_better(error, candidate, candidate_zero, best_error, scale, zero);
    }
  }
}

// The code of w; the division is exact rounding's, as the definition has it.
POTSTILL_INLINE float code_of(float w, float scale, float zero, CodeRange range) {
  return to_code(std::min(std::max(w / scale, -kMostSteps), kMostSteps), zero, range);
}

}  // namespace

POTSTILL_CLONES void choose_scales(const ColumnWork& work, const ScaleSearch& search, int64_t row) {
  const int64_t g = search.group_size, rows = work.rows;
  const auto buffer = std::make_unique_for_overwrite<Row[]>(static_cast<size_t>(g));
  Row* const weights = buffer.get();
  alignas(64) Row scale, zero;
  for (int64_t group = 0; group < work.columns / g; ++group) {
    for (int64_t j = 0; j < g; ++j) {
      std::memcpy(weights[j], work.weights + (group * g + j) * rows + row, sizeof(Row));
    }
    choose_group(weights, search.importance + group * g, g, search, scale, zero);
    std::memcpy(work.scales + group * rows + row, scale, sizeof(Row));
    std::memcpy(work.zeros + group * rows + row, zero, sizeof(Row));
  }
}

POTSTILL_CLONES void round_columns(const ColumnWork& work, int64_t row) {
  for (int64_t i = 0; i < work.columns; ++i) {
    const float* w = work.weights + i * work.rows + row;
    const float* scale = work.scales + work.group_of[i] * work.rows + row;
    const float* zero = work.zeros + work.group_of[i] * work.rows + row;
    int8_t* code = work.codes + i * work.rows + row;
    for (int64_t r = 0; r < kLanes; ++r) code[r] = static_cast<int8_t>(code_of(w[r], scale[r], zero[r], work.range));
  }
}

POTSTILL_CLONES void gptq_block(const ColumnWork& work, const GptqBlock& block, const ScaleSearch& search,
                                int64_t row) {
  const int64_t rows = work.rows, n = block.end - block.begin;
  alignas(64) Row weights[kMaxBlock];
  alignas(64) Row scale, zero, error;
  for (int64_t i = 0; i < n; ++i) {
    std::memcpy(weights[i], work.weights + (block.begin + i) * rows + row, sizeof(Row));
  }
  for (int64_t i = 0; i < n; ++i) {
    const int64_t column = block.begin + i;
    const int64_t group_row = work.group_of[column] * rows + row;
    if (block.dynamic && column % search.group_size == 0) {
      choose_group(weights + i, search.importance + column, search.group_size, search, scale, zero);
      std::memcpy(work.scales + group_row, scale, sizeof(Row));
      std::memcpy(work.zeros + group_row, zero, sizeof(Row));
    }
    std::memcpy(scale, work.scales + group_row, sizeof(Row));
    std::memcpy(zero, work.zeros + group_row, sizeof(Row));
    const float* upper = block.upper + column * work.columns + block.begin;
    const float diagonal = upper[i];
    int8_t* code = work.codes + column * rows + row;
    for (int64_t r = 0; r < kLanes; ++r) {
      const float c = code_of(weights[i][r], scale[r], zero[r], work.range);
      code[r] = static_cast<int8_t>(c);
      error[r] = (weights[i][r] - (c - zero[r]) * scale[r]) / diagonal;
    }
    for (int64_t j = i + 1; j < n; ++j) {
      for (int64_t r = 0; r < kLanes; ++r) weights[j][r] -= error[r] * upper[j];
    }
    std::memcpy(block.errors + i * rows + row, error, sizeof(Row));
  }
}

POTSTILL_CLONES int64_t descend_codes(const ColumnWork& work, const float* hessian, float* gradient, int64_t row) {
  const int64_t rows = work.rows, columns = work.columns;
  alignas(64) Row move;
  int64_t moved = 0;
  for (int64_t j = 0; j < columns; ++j) {
    const float* scale = work.scales + work.group_of[j] * rows + row;
    const float* own = gradient + j * kLanes;
    const float* coupling = hessian + j * columns;
    int8_t* code = work.codes + j * rows + row;
    int32_t moved_here = 0;
    for (int64_t r = 0; r < kLanes; ++r) {
      const float steps = std::min(std::max(own[r] / (scale[r] * coupling[j]), -kMostSteps), kMostSteps);
      const float from = static_cast<float>(code[r]);
      const float to = std::min(std::max(from + round_even(steps), work.range.min), work.range.max);
      code[r] = static_cast<int8_t>(to);
      move[r] = (to - from) * scale[r];
      moved_here += to != from;
    }
    if (moved_here == 0) continue;
    moved += moved_here;
    for (int64_t k = 0; k < columns; ++k) {
      for (int64_t r = 0; r < kLanes; ++r) gradient[k * kLanes + r] -= move[r] * coupling[k];
    }
  }
  return moved;
}

}  // namespace potstill::quant
