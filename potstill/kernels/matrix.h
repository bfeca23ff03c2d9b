// The operands of the products: weights as they lie in the file, activations as they enter a product.
#pragma once

#include <cstddef>
#include <cstdint>

#include "potstill/base/dtype.h"

namespace potstill::kernels {

constexpr int64_t kBlock = 32;  // elements that share a scale, of Q4_0, Q4_1, Q8_0 and of 8-bit activations

// A weight [rows, cols] out of a mapped file: rows are whole, contiguous and in order; the address may be odd.
struct MatrixView {
  DType dtype = DType::kF32;
  int64_t rows = 0, cols = 0;
  const std::byte* data = nullptr;
  size_t row_bytes = 0;

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

// Activations [T, cols] of T tokens. Products with block-quantized weights read either `values` (exact mode) or `codes`
// and `scales` (fast mode, codes != nullptr); products with float weights read `values` always.
struct Activations {
  int64_t num_tokens = 0, cols = 0;
  const float* values = nullptr;      // [T, cols]
  const float* block_sums = nullptr;  // [T, cols / 32] sum of each block as it enters the product; null: cols % 32 != 0
  const int8_t* codes = nullptr;      // [T, cols]
  const float* scales = nullptr;      // [T, cols / 32]
};

}  // namespace potstill::kernels
