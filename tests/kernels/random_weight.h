// Seeded weights in every format, for tests and benchmarks.
#pragma once

#include <cstring>
#include <vector>

#include "potstill/base/rng.h"
#include "potstill/kernels/matrix.h"

namespace potstill::kernels {

struct RandomWeight {
  std::vector<std::byte> bytes;
  MatrixView view;
};

// Codes are uniform, so the extreme ones occur; scales are about 1/50. `misalign` shifts the data from any alignment.
inline RandomWeight random_weight(DType dtype, int64_t rows, int64_t cols, uint64_t seed, size_t misalign = 0) {
  Rng rng(seed, "weight");
  RandomWeight weight;
  const auto row_bytes = static_cast<size_t>(cols / block_elements(dtype) * block_bytes(dtype));
  weight.bytes.resize(misalign + static_cast<size_t>(rows) * row_bytes);
  std::byte* out = weight.bytes.data() + misalign;
  const auto put16 = [&](uint16_t bits) {
    std::memcpy(out, &bits, 2);
    out += 2;
  };
  for (int64_t i = 0; i < rows * cols / block_elements(dtype); ++i) {
    const auto value = static_cast<float>(rng.normal()) * 0.02f;
    switch (dtype) {
      case DType::kF32:
        std::memcpy(out, &value, 4);
        out += 4;
        break;
      case DType::kF16:
        put16(float_to_half(value));
        break;
      case DType::kBF16:
        put16(float_to_bfloat16(value));
        break;
      default:
        put16(float_to_half(value));
        if (dtype == DType::kQ4_1) put16(float_to_half(static_cast<float>(rng.normal()) * 0.1f));
        for (int j = 0; j < (dtype == DType::kQ8_0 ? 32 : 16); ++j) *out++ = static_cast<std::byte>(rng.below(256));
    }
  }
  weight.view = {dtype, rows, cols, weight.bytes.data() + misalign, row_bytes};
  return weight;
}

inline std::vector<float> normals(size_t count, uint64_t seed) {
  Rng rng(seed, "normals");
  std::vector<float> values(count);
  for (float& v : values) v = static_cast<float>(rng.normal());
  return values;
}

}  // namespace potstill::kernels
