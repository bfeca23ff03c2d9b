// Sixteen lanes as two registers of AVX2, with FMA and F16C. Included by kernels_avx2.cpp alone.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "potstill/kernels/matrix.h"

namespace potstill::kernels {
namespace {

struct F {  // sixteen floats
  __m256 a, b;
};
using F8 = __m256;                                                 // eight floats
constexpr int kFloatTokens = 5, kTileTokens = 3, kTileStrips = 1;  // accumulators that fit 16 registers
constexpr int kMatvecTokens = 2;
constexpr int kAttentionVectors = 1;

inline F zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline F broadcast(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, F x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
inline F load_up_to_16(const float* p, int64_t count) {  // zeros after the last
  if (count >= 16) return load(p);
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const auto mask = [&](int64_t n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lanes); };
  return {_mm256_maskload_ps(p, mask(count)), _mm256_maskload_ps(p + 8, mask(count - 8))};
}
inline F add(F x, F y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline F sub(F x, F y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline F mul(F x, F y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline F div(F x, F y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline F max(F x, F y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline F min(F x, F y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline F fma(F x, F y, F z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
inline F abs(F x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}

inline float reduce_add8(F8 x) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
inline F8 fold(F x) { return _mm256_add_ps(x.a, x.b); }
inline float reduce_add(F x) { return reduce_add8(fold(x)); }
inline float reduce_max(F x) {
  const __m256 y = _mm256_max_ps(x.a, x.b);
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
inline F round_even(F x) {
  constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(x.a, mode), _mm256_round_ps(x.b, mode)};
}
// p * 2^n, where t = n + 1.5 * 2^23 holds n in its low bits.
inline __m256 scale_by_pow2(__m256 p, __m256 t) {
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(t), 23)));
}
inline F scale_by_pow2(F p, F t) { return {scale_by_pow2(p.a, t.a), scale_by_pow2(p.b, t.b)}; }

inline __m128i load_128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
inline __m256i load_256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline __m128i load_64(const void* p) { return _mm_loadl_epi64(static_cast<const __m128i*>(p)); }

inline F load_half(const uint16_t* p) { return {_mm256_cvtph_ps(load_128(p)), _mm256_cvtph_ps(load_128(p + 8))}; }
inline void store_half(uint16_t* p, F x) {
  constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x.a, mode));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(x.b, mode));
}
// The lower and the upper half of each word, as fp16.
inline __m256 halves8(__m256i words) {  // each below 2^16
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(words, words), 0b11011000);
  return _mm256_cvtph_ps(_mm256_castsi256_si128(packed));
}
inline F low_halves(const uint32_t* words) {
  const __m256i mask = _mm256_set1_epi32(0xffff);
  return {halves8(_mm256_and_si256(load_256(words), mask)), halves8(_mm256_and_si256(load_256(words + 8), mask))};
}
inline F high_halves(const uint32_t* words) {
  return {halves8(_mm256_srli_epi32(load_256(words), 16)), halves8(_mm256_srli_epi32(load_256(words + 8), 16))};
}
inline __m256 load_bfloat8(const uint16_t* p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_128(p)), 16));
}
inline F load_bfloat(const uint16_t* p) { return {load_bfloat8(p), load_bfloat8(p + 8)}; }
inline F load_i8(const int8_t* p) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(load_64(p))),
          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(load_64(p + 8)))};
}
inline void store_i8(int8_t* p, F x) {  // x whole and in [-128, 127]
  const __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b));  // a0 b0 a1 b1
  const __m256i ordered = _mm256_permute4x64_epi64(words, 0b11011000);
  const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
}

// ---- matvec: one block of a row at a time.
using Lanes = __m256;
constexpr int64_t kStepBlocks = 1;
inline Lanes zero_lanes() { return _mm256_setzero_ps(); }
inline Lanes mul_lanes(Lanes a, Lanes b) { return _mm256_mul_ps(a, b); }
inline Lanes fma_lanes(Lanes a, Lanes b, Lanes c) { return _mm256_fmadd_ps(a, b, c); }

struct Weights {
  __m256i codes;  // 4-bit ones unsigned, 8-bit ones signed
  Lanes scales, minima;
};
struct Terms {
  __m256i high, low, start;  // start: minus offset * sum of the lane's codes
  Lanes scales, block_sums;
};

template <class Format>
inline Terms load_terms(const ActivationUnit& unit, int64_t half) {
  const __m256i neg_sums = load_256(unit.neg_sums + 8 * half);
  return {load_256(unit.high + 32 * half), load_256(unit.low + 32 * half),
          Format::kOffset == 0 ? _mm256_setzero_si256() : _mm256_slli_epi32(neg_sums, 3),
          _mm256_load_ps(unit.scales + 8 * half), _mm256_load_ps(unit.block_sums + 8 * half)};
}

inline Lanes broadcast_half(const std::byte* p) {
  short x;
  std::memcpy(&x, p, 2);
  return _mm256_cvtph_ps(_mm_set1_epi16(x));
}
template <class Format, bool kWhole>
inline Weights load_weights(const std::byte* p) {
  __m256i codes;
  if constexpr (Format::kFourBits) {
    const __m128i q = load_128(p + Format::kCodes);
    const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(q), _mm_srli_epi16(q, 4), 1);
    codes = _mm256_and_si256(both, _mm256_set1_epi8(15));
  } else {
    codes = load_256(p + Format::kCodes);
  }
  return {codes, broadcast_half(p), Format::kHasMin ? broadcast_half(p + 2) : _mm256_setzero_ps()};
}
// |q| · (x with q's sign): the instruction multiplies unsigned by signed. 2 * 128 * 127 < 2^15: no saturation.
inline __m256i signed_pairs(__m256i codes, __m256i x) {
  return _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes));
}
// Σ (code - offset) * x of each lane's four.
template <class Format, bool kExact>
inline Lanes dot(const Weights& weights, const Terms& x) {
  const auto pairs = [&](__m256i activations) {
    return Format::kFourBits ? _mm256_maddubs_epi16(weights.codes, activations)
                             : signed_pairs(weights.codes, activations);
  };
  const auto sums = [&](__m256i activations, short factor) {
    return _mm256_madd_epi16(pairs(activations), _mm256_set1_epi16(factor));
  };
  __m256i sum = kExact ? _mm256_add_epi32(sums(x.high, 255), sums(x.low, 1)) : sums(x.high, 1);
  if constexpr (Format::kOffset != 0) sum = _mm256_add_epi32(sum, x.start);
  return _mm256_cvtepi32_ps(sum);
}
// sums[i] = all lanes of x[i], for count <= 4; each in the same order, whatever the count.
inline void reduce_4(const Lanes* x, int count, float* sums) {
  const auto of = [&](int i) { return x[i < count ? i : 0]; };
  const __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(of(0), of(1)), _mm256_hadd_ps(of(2), of(3)));
  _mm_storeu_ps(sums, _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1)));
}
// Of one block, eight lanes of four codes each.
inline void store_neg_sums(const int8_t* high, const int8_t* low, bool exact, int32_t* sums) {
  const __m256i ones = _mm256_set1_epi8(1), none = _mm256_setzero_si256();
  const auto fours = [&](const int8_t* p, short factor) {
    return _mm256_madd_epi16(_mm256_maddubs_epi16(ones, load_256(p)), _mm256_set1_epi16(factor));
  };
  const __m256i sum = exact ? _mm256_add_epi32(fours(high, 255), fours(low, 1)) : fours(high, 1);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums), _mm256_sub_epi32(none, sum));
}

// ---- matmul: sixteen rows side by side, four codes of each in a word. Adds the products with four activations.
struct Sum {
  __m256i a, b;
};
struct TileWord {
  __m256i a, b;
};
constexpr int kQ8Offset = 0;
constexpr bool kSumsHoldBothParts = false;  // sums of 4-bit codes are in sixteen bits
inline Sum zero_sum() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline Sum times_255(Sum sum) { return sum; }
inline TileWord load_tile_word(const uint8_t* tile) { return {load_256(tile), load_256(tile + 32)}; }
inline __m256i four_activations(const int8_t* x) {
  int word;
  std::memcpy(&word, x, 4);
  return _mm256_set1_epi32(word);
}
// Sums of 4-bit codes stay in sixteen bits for the eight words of a block: 8 * 2 * 15 * 127 = 30480 < 2^15.
template <class Format>
inline __m256i dot_tile(__m256i sum, __m256i codes, __m256i four) {
  if constexpr (Format::kFourBits) return _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes, four));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(signed_pairs(codes, four), _mm256_set1_epi16(1)));
}
template <class Format>
inline Sum dot_tile(Sum sum, TileWord word, __m256i four) {
  return {dot_tile<Format>(sum.a, word.a, four), dot_tile<Format>(sum.b, word.b, four)};
}
template <class Format>
inline F finish_sum(Sum sum) {
  const auto finish = [](__m256i x) {
    return _mm256_cvtepi32_ps(Format::kFourBits ? _mm256_madd_epi16(x, _mm256_set1_epi16(1)) : x);
  };
  return {finish(sum.a), finish(sum.b)};
}

}  // namespace
}  // namespace potstill::kernels
