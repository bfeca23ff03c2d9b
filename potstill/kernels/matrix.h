// The operands of the products: weights as they lie in the file, activations as they enter a product.
#pragma once

#include <cstddef>
#include <cstdint>

#include "potstill/base/dtype.h"

namespace potstill::kernels {

constexpr int64_t kBlock = 32;  // elements that share a scale, of Q4_0, Q4_1, Q8_0 and of 8-bit activations

// A weight [rows, cols]. Out of a mapped file the rows are whole, contiguous and in order; the address may be odd.
struct MatrixView {
  DType dtype = DType::kF32;
  int64_t rows = 0, cols = 0;
  const std::byte* data = nullptr;
  size_t row_bytes = 0;
  int64_t lane_group = 0;  // rows that lie side by side (lane_order.h); 0: none do, they are as in the file

  size_t bytes() const { return static_cast<size_t>(rows) * row_bytes; }
  // Where rows lie side by side: of a group's first row alone, and the group.
  const std::byte* row(int64_t r) const { return data + static_cast<size_t>(r) * row_bytes; }
};

// F32, F16, BF16, Q4_0, Q4_1, Q8_0.
inline bool has_kernels(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
    case DType::kQ4_0:
    case DType::kQ4_1:
    case DType::kQ8_0:
      return true;
    default:
      return false;
  }
}

// Products with block-quantized weights take activations as integers, a scale for each block of 32, in one of two
// widths:
//   exact: 16 bits, code = 255 * high + low, scale = max|x| / 32512. The parts lie in [-127, 127], so that changing a
//          sign never overflows; the step is finer than fp16's for values above a 16th of their block's largest
//   fast:   8 bits, code = high, scale = max|x| / 127: what llama.cpp does
// Integer sums are exact, so a product differs from that of the floats by the rounding of the codes alone. Products
// with float weights read the floats.
enum class CodeWidth { kExact, kFast };

// Activations [T, cols] of T tokens, as the products read them.
struct Activations {
  int64_t num_tokens = 0, cols = 0;
  const float* values = nullptr;  // [T, cols]
  // For block-quantized weights, else null:
  const int8_t* high = nullptr;       // [T, cols]
  const int8_t* low = nullptr;        // [T, cols]; null: fast
  const float* scales = nullptr;      // [T, cols / 32]
  const float* block_sums = nullptr;  // [T, cols / 32] scale * sum of the codes
  const int32_t* offsets = nullptr;   // [T, cols / 32] -8 * sum of the codes: what Q4_0's codes are too large by
};

}  // namespace potstill::kernels
