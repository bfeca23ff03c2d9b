// A product of small fp32 matrices as one inlined loop nest, for kernels whose matrices are too small for a library
// call. Include it in files compiled as clones.h says.
#pragma once

#include <cstdint>

#include "potstill/nn/clones.h"

namespace potstill {

inline constexpr int64_t kLanes = 16;
// Sixteen floats at any address: one register of AVX-512, two of AVX2, four of SSE.
typedef float FloatLanes __attribute__((vector_size(kLanes * sizeof(float)), aligned(alignof(float)), may_alias));

template <bool kAdd, int64_t kRows>
POTSTILL_INLINE void product_rows(const float* a, int64_t a_row, int64_t a_step, const float* b, int64_t b_row,
                                  int64_t depth, int64_t columns, float* c, int64_t c_row) {
  for (int64_t j = 0; j < columns; j += kLanes) {
    FloatLanes sums[kRows];
    for (int64_t r = 0; r < kRows; ++r) {
      sums[r] = kAdd ? *reinterpret_cast<const FloatLanes*>(c + r * c_row + j) : FloatLanes{};
    }
    for (int64_t d = 0; d < depth; ++d) {
      const FloatLanes right = *reinterpret_cast<const FloatLanes*>(b + d * b_row + j);
      for (int64_t r = 0; r < kRows; ++r) sums[r] += a[r * a_row + d * a_step] * right;
    }
    for (int64_t r = 0; r < kRows; ++r) *reinterpret_cast<FloatLanes*>(c + r * c_row + j) = sums[r];
  }
}

// C = A B, or C += A B: A [rows, depth] with strides a_row and a_step, B [depth, columns] and C [rows, columns] with
// rows b_row and c_row apart; columns in whole lanes.
template <bool kAdd>
POTSTILL_INLINE void product(const float* a, int64_t a_row, int64_t a_step, const float* b, int64_t b_row, int64_t rows,
                             int64_t depth, int64_t columns, float* c, int64_t c_row) {
  int64_t i = 0;
  for (; i + 6 <= rows; i += 6) {
    product_rows<kAdd, 6>(a + i * a_row, a_row, a_step, b, b_row, depth, columns, c + i * c_row, c_row);
  }
  for (; i + 2 <= rows; i += 2) {
    product_rows<kAdd, 2>(a + i * a_row, a_row, a_step, b, b_row, depth, columns, c + i * c_row, c_row);
  }
  for (; i < rows; ++i) {
    product_rows<kAdd, 1>(a + i * a_row, a_row, a_step, b, b_row, depth, columns, c + i * c_row, c_row);
  }
}

}  // namespace potstill
