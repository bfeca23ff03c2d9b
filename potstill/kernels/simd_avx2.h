// Sixteen lanes as two registers of AVX2, with FMA and F16C. Included by kernels_avx2.cpp alone.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace potstill::kernels {
namespace {

struct F {  // sixteen floats
  __m256 a, b;
};
using F8 = __m256;                                      // eight floats
constexpr int kMatmulTokens = 5, kIntMatmulTokens = 3;  // accumulators that fit 16 registers
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

// The codes 0..15 of a block: bytes hold element j low and element j + 16 high.
inline void unpack_u4(const uint8_t* qs, F& low, F& high) {
  const __m256i a = _mm256_cvtepu8_epi32(load_64(qs)), b = _mm256_cvtepu8_epi32(load_64(qs + 8));
  const __m256i mask = _mm256_set1_epi32(15);
  low = {_mm256_cvtepi32_ps(_mm256_and_si256(a, mask)), _mm256_cvtepi32_ps(_mm256_and_si256(b, mask))};
  high = {_mm256_cvtepi32_ps(_mm256_srli_epi32(a, 4)), _mm256_cvtepi32_ps(_mm256_srli_epi32(b, 4))};
}

// Byte b of each of sixteen words, as float.
inline __m256 byte_of8(const uint8_t* words, int b) {
  const __m256i shifted = _mm256_srl_epi32(load_256(words), _mm_cvtsi32_si128(8 * b));
  return _mm256_cvtepi32_ps(_mm256_and_si256(shifted, _mm256_set1_epi32(255)));
}
inline F byte_of(const uint8_t* words, int b) { return {byte_of8(words, b), byte_of8(words + 32, b)}; }

// Integer products of one block of a row with a block of 8-bit activations; the sum of the eight lanes is the dot
// product.
inline F8 block_dot_u4(const uint8_t* qs, const int8_t* x) {
  const __m128i q = load_128(qs);
  const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(q), _mm_srli_epi16(q, 4), 1);
  const __m256i codes = _mm256_and_si256(both, _mm256_set1_epi8(15));
  const __m256i pairs = _mm256_maddubs_epi16(codes, load_256(x));  // at most 2 * 15 * 128: no saturation
  return _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
inline F8 block_dot_s8(const int8_t* q, const int8_t* x) {
  const __m256i codes = load_256(q);
  // |q| · (x with q's sign): the instruction multiplies unsigned by signed. 2 * 128 * 127 < 2^15: no saturation.
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(load_256(x), codes));
  return _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
inline void set_zero(F8& x) { x = _mm256_setzero_ps(); }
inline void set_zero(F& x) { x = zero(); }
inline F8 add8(F8 a, F8 b) { return _mm256_add_ps(a, b); }
inline F8 fma8(F8 a, float b, F8 c) { return _mm256_fmadd_ps(a, _mm256_set1_ps(b), c); }

// A tile: sixteen rows side by side, four codes of each in a word. Adds the products with four activations.
struct Sum {
  __m256i a, b;
};
constexpr int kQ8Offset = 0;
inline Sum zero_sum() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline __m256i four_activations(const int8_t* x) {
  int word;
  std::memcpy(&word, x, 4);
  return _mm256_set1_epi32(word);
}
// Sums of 4-bit codes stay in sixteen bits for the eight words of a block: 8 * 2 * 15 * 127 = 30480 < 2^15.
inline Sum dot_u4(Sum sum, const uint8_t* tile, const int8_t* x) {
  const __m256i activations = four_activations(x);
  return {_mm256_add_epi16(sum.a, _mm256_maddubs_epi16(load_256(tile), activations)),
          _mm256_add_epi16(sum.b, _mm256_maddubs_epi16(load_256(tile + 32), activations))};
}
inline F finish_u4(Sum sum) {
  const __m256i ones = _mm256_set1_epi16(1);
  return {_mm256_cvtepi32_ps(_mm256_madd_epi16(sum.a, ones)), _mm256_cvtepi32_ps(_mm256_madd_epi16(sum.b, ones))};
}
inline __m256i dot_q8(__m256i sum, __m256i codes, __m256i activations) {
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(activations, codes));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
inline Sum dot_q8(Sum sum, const uint8_t* tile, const int8_t* x) {
  const __m256i activations = four_activations(x);
  return {dot_q8(sum.a, load_256(tile), activations), dot_q8(sum.b, load_256(tile + 32), activations)};
}
inline F finish_q8(Sum sum) { return {_mm256_cvtepi32_ps(sum.a), _mm256_cvtepi32_ps(sum.b)}; }

}  // namespace
}  // namespace potstill::kernels
