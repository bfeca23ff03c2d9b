// Sixteen lanes on AVX-512 (F, BW, VL, DQ) with VNNI. Included by kernels_avx512.cpp alone.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace potstill::kernels {
namespace {

using F = __m512;                                        // sixteen floats
using F8 = __m256;                                       // eight floats
constexpr int kMatmulTokens = 12, kIntMatmulTokens = 8;  // accumulators that fit 32 registers
constexpr int kAttentionVectors = 4;

inline F zero() { return _mm512_setzero_ps(); }
inline F broadcast(float x) { return _mm512_set1_ps(x); }
inline F load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, F x) { _mm512_storeu_ps(p, x); }
inline F load_up_to_16(const float* p, int64_t count) {  // zeros after the last
  return count >= 16 ? load(p) : _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), p);
}
inline F add(F a, F b) { return _mm512_add_ps(a, b); }
inline F sub(F a, F b) { return _mm512_sub_ps(a, b); }
inline F mul(F a, F b) { return _mm512_mul_ps(a, b); }
inline F div(F a, F b) { return _mm512_div_ps(a, b); }
inline F max(F a, F b) { return _mm512_max_ps(a, b); }
inline F min(F a, F b) { return _mm512_min_ps(a, b); }
inline F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
inline F abs(F a) { return _mm512_abs_ps(a); }

inline float reduce_add8(F8 x) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
inline F8 fold(F x) { return _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1)); }
inline float reduce_add(F x) { return reduce_add8(fold(x)); }
inline float reduce_max(F x) { return _mm512_reduce_max_ps(x); }
inline F round_even(F x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// p * 2^n, where t = n + 1.5 * 2^23 holds n in its low bits.
inline F scale_by_pow2(F p, F t) {
  return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(t), 23)));
}

inline F load_half(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline void store_half(uint16_t* p, F x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
// The lower and the upper half of each word, as fp16.
inline F low_halves(const uint32_t* words) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_load_si512(words))); }
inline F high_halves(const uint32_t* words) {
  return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_load_si512(words), 16)));
}
inline F load_bfloat(const uint16_t* p) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
inline F load_i8(const int8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
inline void store_i8(int8_t* p, F x) {  // x whole and in [-128, 127]
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x)));
}

// The codes 0..15 of a block: bytes hold element j low and element j + 16 high. One table look-up turns a nibble into a
// float; the permutation reads the low four bits of each index only, so nothing needs masking.
inline void unpack_u4(const uint8_t* qs, F& low, F& high) {
  const F table = _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i wide = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(qs)));
  low = _mm512_permutexvar_ps(wide, table);
  high = _mm512_permutexvar_ps(_mm512_srli_epi32(wide, 4), table);
}

// Byte b of each of sixteen words, as float.
inline F byte_of(const uint8_t* words, int b) {
  const __m512i w = _mm512_loadu_si512(words);
  return _mm512_cvtepi32_ps(
      _mm512_and_si512(_mm512_srli_epi32(w, static_cast<unsigned>(8 * b)), _mm512_set1_epi32(255)));
}

// Integer products of one block of a row with a block of 8-bit activations; the sum of the eight lanes is the dot
// product.
inline F8 block_dot_u4(const uint8_t* qs, const int8_t* x) {
  const __m128i q = _mm_loadu_si128(reinterpret_cast<const __m128i*>(qs));
  const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(q), _mm_srli_epi16(q, 4), 1);
  const __m256i codes = _mm256_and_si256(both, _mm256_set1_epi8(15));
  const __m256i activations = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
  return _mm256_cvtepi32_ps(_mm256_dpbusd_epi32(_mm256_setzero_si256(), codes, activations));
}
inline F8 block_dot_s8(const int8_t* q, const int8_t* x) {
  const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q));
  const __m256i activations = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
  // |q| · (x with q's sign): the instruction multiplies unsigned by signed.
  const __m256i products =
      _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_abs_epi8(codes), _mm256_sign_epi8(activations, codes));
  return _mm256_cvtepi32_ps(products);
}
inline void set_zero(F8& x) { x = _mm256_setzero_ps(); }
inline void set_zero(F& x) { x = zero(); }
inline F8 add8(F8 a, F8 b) { return _mm256_add_ps(a, b); }
inline F8 fma8(F8 a, float b, F8 c) { return _mm256_fmadd_ps(a, _mm256_set1_ps(b), c); }

// A tile: sixteen rows side by side, four codes of each in a word. Adds the products with four activations.
using Sum = __m512i;
constexpr int kQ8Offset = 128;  // 8-bit codes lie in a tile as code + 128, for they must be unsigned
inline Sum zero_sum() { return _mm512_setzero_si512(); }
inline __m512i four_activations(const int8_t* x) {
  int word;
  std::memcpy(&word, x, 4);
  return _mm512_set1_epi32(word);
}
inline Sum dot_u4(Sum sum, const uint8_t* tile, const int8_t* x) {
  return _mm512_dpbusd_epi32(sum, _mm512_load_si512(tile), four_activations(x));
}
inline F finish_u4(Sum sum) { return _mm512_cvtepi32_ps(sum); }
inline Sum dot_q8(Sum sum, const uint8_t* tile, const int8_t* x) { return dot_u4(sum, tile, x); }
inline F finish_q8(Sum sum) { return _mm512_cvtepi32_ps(sum); }

}  // namespace
}  // namespace potstill::kernels
