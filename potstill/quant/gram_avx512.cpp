#include <immintrin.h>

#include <cstring>

#include "potstill/quant/gram_kernel.h"

namespace potstill::quant {
namespace {

constexpr int64_t kTileRows = 8, kVectors = kGramPanel / 16;  // 24 sums, 3 columns and a row in 32 registers

void pack_fp32(const void* x, int64_t stride, int64_t tokens, int64_t columns, uint32_t* panel) {
  const auto* from = static_cast<const uint32_t*>(x);
  for (int64_t t = 0; t < tokens; ++t, from += stride, panel += kGramPanel) {
    std::memcpy(panel, from, static_cast<size_t>(columns) * 4);
    std::memset(panel + columns, 0, static_cast<size_t>(kGramPanel - columns) * 4);
  }
}

void pack_bf16(const void* x, int64_t stride, int64_t tokens, int64_t columns, uint32_t* panel) {
  const auto* from = static_cast<const uint16_t*>(x);
  for (int64_t t = 0; t < tokens; t += 2, from += 2 * stride, panel += kGramPanel) {
    const bool whole = t + 1 < tokens;
    for (int64_t j = 0; j < columns; ++j) {
      panel[j] = from[j] | (whole ? static_cast<uint32_t>(from[stride + j]) << 16 : 0);
    }
    std::memset(panel + columns, 0, static_cast<size_t>(kGramPanel - columns) * 4);
  }
}

template <bool kBf16>
__m512 add_products(__m512 sum, __m512i a, __m512i b) {
  if constexpr (kBf16) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  } else {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum);
  }
}

template <bool kBf16>
void add_tile(const uint32_t* rows, const uint32_t* columns, int64_t steps, int64_t num_rows, int64_t num_columns,
              double* sum, int64_t stride) {
  for (int64_t row = 0; row < num_rows; row += kTileRows) {
    __m512 sums[kTileRows][kVectors];
    for (auto& of_row : sums) {
      for (auto& lane : of_row) lane = _mm512_setzero_ps();
    }
    for (int64_t s = 0; s < steps; ++s) {
      __m512i b[kVectors];
#pragma GCC unroll 3
      for (int64_t v = 0; v < kVectors; ++v) b[v] = _mm512_loadu_si512(columns + s * kGramPanel + 16 * v);
#pragma GCC unroll 8
      for (int64_t i = 0; i < kTileRows; ++i) {
        const __m512i a = _mm512_set1_epi32(static_cast<int>(rows[s * kGramPanel + row + i]));
#pragma GCC unroll 3
        for (int64_t v = 0; v < kVectors; ++v) sums[i][v] = add_products<kBf16>(sums[i][v], a, b[v]);
      }
    }
    for (int64_t i = 0; i < kTileRows && row + i < num_rows; ++i) {
      float values[kGramPanel];
      for (int64_t v = 0; v < kVectors; ++v) _mm512_storeu_ps(values + 16 * v, sums[i][v]);
      double* out = sum + (row + i) * stride;
      for (int64_t j = 0; j < num_columns; ++j) out[j] += static_cast<double>(values[j]);
    }
  }
}

}  // namespace

const GramKernel kGramFp32 = {.tokens_of_step = 1, .most_steps = 2048, .pack = pack_fp32, .add_tile = add_tile<false>};
const GramKernel kGramBf16 = {.tokens_of_step = 2, .most_steps = 2048, .pack = pack_bf16, .add_tile = add_tile<true>};

}  // namespace potstill::quant
