// Sixteen lanes on AVX-512 (F, BW, VL, DQ) with VNNI, VBMI and GFNI. Included by kernels_avx512.cpp alone.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "potstill/kernels/matrix.h"

namespace potstill::kernels {
namespace {

using F = __m512;                                                   // sixteen floats
using F8 = __m256;                                                  // eight floats
constexpr int kFloatTokens = 12, kTileTokens = 6, kTileStrips = 2;  // accumulators that fit 32 registers
constexpr int kMatvecTokens = 4;
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

// ---- matvec: two blocks of a row at a time, one in each half of a register.
using Lanes = __m512;
constexpr int64_t kStepBlocks = 2;
inline Lanes zero_lanes() { return _mm512_setzero_ps(); }
inline Lanes mul_lanes(Lanes a, Lanes b) { return _mm512_mul_ps(a, b); }
inline Lanes fma_lanes(Lanes a, Lanes b, Lanes c) { return _mm512_fmadd_ps(a, b, c); }

struct Weights {
  __m512i codes;  // unsigned; 8-bit ones + 128
  Lanes scales, minima;
};
struct Terms {
  __m512i high, low, start;  // start: minus offset * sum of the lane's codes
  Lanes scales, block_sums;
};

template <class Format>
inline Terms load_terms(const ActivationUnit& unit, int64_t) {
  const __m512i neg_sums = _mm512_load_si512(unit.neg_sums);
  return {_mm512_load_si512(unit.high), _mm512_load_si512(unit.low),
          !Format::kFourBits ? _mm512_slli_epi32(neg_sums, 7)
                             : (Format::kOffset == 0 ? _mm512_setzero_si512() : _mm512_slli_epi32(neg_sums, 3)),
          _mm512_load_ps(unit.scales), _mm512_load_ps(unit.block_sums)};
}

// The fp16 that lies in word `first` of the first block and in word `second` for the second, in the lanes of each.
template <int first, int second>
inline Lanes block_halves(__m512i bytes) {
  const __m256i index = _mm256_setr_epi16(first, first, first, first, first, first, first, first, second, second,
                                          second, second, second, second, second, second);
  return _mm512_cvtph_ps(_mm256_permutexvar_epi16(index, _mm512_castsi512_si256(bytes)));
}
// kWhole: two blocks are there; else one, and the other half is zero. Never reads past the last block.
template <class Format, bool kWhole>
inline Weights load_weights(const std::byte* p) {
  if constexpr (Format::kFourBits) {
    constexpr __mmask64 kMask = (uint64_t{1} << ((kWhole ? 2 : 1) * Format::kBytes)) - 1;
    const __m512i bytes = _mm512_maskz_loadu_epi8(kMask, p);
    // Sixteen bytes of codes to two lanes each: low nibbles stay, high ones come down.
    const auto lane = [](int64_t at) {
      return _mm_add_epi8(_mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                          _mm_set1_epi8(static_cast<char>(at)));
    };
    const __m128i one = lane(Format::kCodes), two = lane(Format::kBytes + Format::kCodes);
    const __m512i index =
        _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_set_m128i(one, one)), _mm256_set_m128i(two, two), 1);
    // An affine map of each byte's bits: its low four where they are, or its high four there.
    constexpr int64_t kLow = 0x0102040800000000, kHigh = 0x1020408000000000;
    const __m512i nibbles = _mm512_set_epi64(kHigh, kHigh, kLow, kLow, kHigh, kHigh, kLow, kLow);
    const __m512i codes = _mm512_gf2p8affine_epi64_epi8(_mm512_permutexvar_epi8(index, bytes), nibbles, 0);
    constexpr int kSecond = Format::kBytes / 2;
    return {codes, block_halves<0, kSecond>(bytes),
            Format::kHasMin ? block_halves<1, kSecond + 1>(bytes) : _mm512_setzero_ps()};
  } else {
    const auto half = [](const std::byte* at) {
      short x;
      std::memcpy(&x, at, 2);
      return x;
    };
    const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + Format::kCodes));
    __m256i b = _mm256_setzero_si256(), d = _mm256_zextsi128_si256(_mm_set1_epi16(half(p)));
    if constexpr (kWhole) {
      b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + Format::kBytes + Format::kCodes));
      d = _mm256_inserti128_si256(d, _mm_set1_epi16(half(p + Format::kBytes)), 1);
    }
    const __m512i codes = _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
    return {_mm512_xor_si512(codes, _mm512_set1_epi8(-128)), _mm512_cvtph_ps(d), _mm512_setzero_ps()};
  }
}
// Σ (code - offset) * x of each lane's four.
template <class Format, bool kExact>
inline Lanes dot(const Weights& weights, const Terms& x) {
  if constexpr (kExact) {
    const __m512i high = _mm512_dpbusd_epi32(_mm512_setzero_si512(), weights.codes, x.high);
    const __m512i low = _mm512_dpbusd_epi32(x.start, weights.codes, x.low);
    if constexpr (Format::kFourBits) {  // high is below 2^15: the lower half of its lane
      return _mm512_cvtepi32_ps(_mm512_dpwssd_epi32(low, high, _mm512_set1_epi32(255)));
    }
    return _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(high, 8), _mm512_sub_epi32(low, high)));
  } else {
    return _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(x.start, weights.codes, x.high));
  }
}
// sums[i] = all lanes of x[i], for count <= 4; each in the same order, whatever the count.
inline void reduce_4(const Lanes* x, int count, float* sums) {
  const auto of = [&](int i) { return fold(x[i < count ? i : 0]); };
  const __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(of(0), of(1)), _mm256_hadd_ps(of(2), of(3)));
  _mm_storeu_ps(sums, _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1)));
}
// Of one block, eight lanes of four codes each.
inline void store_neg_sums(const int8_t* high, const int8_t* low, bool exact, int32_t* sums) {
  const auto load = [](const int8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); };
  const __m256i ones = _mm256_set1_epi8(1), none = _mm256_setzero_si256();
  const __m256i highs = _mm256_dpbusd_epi32(none, ones, load(high)), lows = _mm256_dpbusd_epi32(none, ones, load(low));
  const __m256i sum = exact ? _mm256_add_epi32(_mm256_slli_epi32(highs, 8), _mm256_sub_epi32(lows, highs)) : highs;
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums), _mm256_sub_epi32(none, sum));
}

// ---- matmul: sixteen rows side by side, four codes of each in a word. Adds the products with four activations.
using Sum = __m512i;
using TileWord = __m512i;
constexpr int kQ8Offset = 128;  // 8-bit codes lie in a tile as code + 128, for they must be unsigned
constexpr bool kSumsHoldBothParts = true;
inline Sum zero_sum() { return _mm512_setzero_si512(); }
inline Sum times_255(Sum sum) { return _mm512_sub_epi32(_mm512_slli_epi32(sum, 8), sum); }
inline TileWord load_tile_word(const uint8_t* tile) { return _mm512_load_si512(tile); }
inline __m512i four_activations(const int8_t* x) {
  int word;
  std::memcpy(&word, x, 4);
  return _mm512_set1_epi32(word);
}
template <class Format>
inline Sum dot_tile(Sum sum, TileWord word, __m512i four) {
  return _mm512_dpbusd_epi32(sum, word, four);
}
template <class Format>
inline F finish_sum(Sum sum) {
  return _mm512_cvtepi32_ps(sum);
}

}  // namespace
}  // namespace potstill::kernels
