// Sixteen lanes as two registers of AVX2, with FMA and F16C. Included by kernels_avx2.cpp alone.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "potstill/kernels/lane_group_inl.h"
#include "potstill/kernels/matrix.h"

namespace potstill::kernels {
namespace {

struct F {  // sixteen floats
  __m256 a, b;
};
using F8 = __m256;  // eight floats
constexpr int kFloatTokens = 5, kTileTokens = 2, kFastTileTokens = 4,
              kTileStrips = 1;  // accumulators that fit 16 registers
constexpr int kMatvecTokens = 2;
constexpr bool kTotalsInMemory = true;
constexpr int kAttentionVectors = 1, kAttentionGroups = 1;

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

// ---- matvec: eight rows side by side, four codes of each in a lane.
using Lanes = __m256;
constexpr int kLaneRows = 8, kLaneParts = 2;  // two times eight rows share the loads of a token
constexpr int64_t kLaneGroup = kLaneRows * kLaneParts;
// How far ahead a product fetches; 0: not at all, for the processor's own prefetchers do better (simd_avx512.h) but
// where a line takes so many instructions that they see too few lines at a time.
template <class Format, bool kExact>
constexpr int64_t kLanesAhead = Format::kFourBits&& kExact ? 16384 : 0;
inline Lanes zero_lanes() { return _mm256_setzero_ps(); }
inline Lanes load_lanes(const float* p) { return _mm256_loadu_ps(p); }
inline void store_lanes(float* p, Lanes x) { _mm256_storeu_ps(p, x); }
inline Lanes add_lanes(Lanes a, Lanes b) { return _mm256_add_ps(a, b); }
inline float first_lane(Lanes x) { return _mm256_cvtss_f32(x); }
inline __m256i four_activations(const int8_t* x) {
  int word;
  std::memcpy(&word, x, 4);
  return _mm256_set1_epi32(word);
}
// |q| · (x with q's sign): the instruction multiplies unsigned by signed. 2 * 128 * 127 < 2^15: no saturation.
inline __m256i signed_pairs(__m256i codes, __m256i x) {
  return _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes));
}
inline __m256i times(__m256i pairs, short factor) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(factor)); }

// words[j] = word j of sixteen bytes of each row.
inline void load_row_words(const std::byte* p, size_t stride, __m256i* words) {
  __m256i rows[4];
  for (size_t r = 0; r < 4; ++r) {
    rows[r] =
        _mm256_inserti128_si256(_mm256_castsi128_si256(load_128(p + r * stride)), load_128(p + (r + 4) * stride), 1);
  }
  const __m256i a = _mm256_unpacklo_epi32(rows[0], rows[1]), b = _mm256_unpacklo_epi32(rows[2], rows[3]);
  const __m256i c = _mm256_unpackhi_epi32(rows[0], rows[1]), d = _mm256_unpackhi_epi32(rows[2], rows[3]);
  words[0] = _mm256_unpacklo_epi64(a, b);
  words[1] = _mm256_unpackhi_epi64(a, b);
  words[2] = _mm256_unpacklo_epi64(c, d);
  words[3] = _mm256_unpackhi_epi64(c, d);
}
// The first two halves of four rows each: d of the rows in the lower half, m in the upper one.
inline __m128i load_four_heads(const std::byte* p, size_t stride) {
  const auto head = [&](size_t r) {
    int word;
    std::memcpy(&word, p + r * stride, 4);
    return _mm_cvtsi32_si128(word);
  };
  return _mm_unpacklo_epi32(_mm_unpacklo_epi16(head(0), head(1)), _mm_unpacklo_epi16(head(2), head(3)));
}

// A block of each of eight rows that lie one after the other.
template <class Format>
struct FileBlocks {
  __m256i words[Format::kFourBits ? 4 : 8];
  Lanes d, m;

  FileBlocks(const std::byte* p, size_t stride) {
    load_row_words(p + Format::kCodes, stride, words);
    if constexpr (!Format::kFourBits) load_row_words(p + Format::kCodes + 16, stride, words + 4);
    const __m128i a = load_four_heads(p, stride), b = load_four_heads(p + 4 * stride, stride);
    d = _mm256_cvtph_ps(_mm_unpacklo_epi64(a, b));
    m = Format::kHasMin ? _mm256_cvtph_ps(_mm_unpackhi_epi64(a, b)) : _mm256_setzero_ps();
  }
  __m256i word(int j, int /*part*/) const { return words[j]; }
  Lanes scales(int /*part*/) const { return d; }
  Lanes minima(int /*part*/) const { return m; }
};
// The same of rows that lie side by side, from `row` of a group on, eight a part.
template <class Format>
struct LaneBlocks {
  LaneGroup<Format> group;
  int64_t block, row;

  __m256i word(int j, int part) const { return load_256(group.codes(block, j, row + kLaneRows * part)); }
  Lanes scales(int part) const { return _mm256_cvtph_ps(load_128(group.scales(block, row + kLaneRows * part))); }
  Lanes minima(int part) const { return _mm256_cvtph_ps(load_128(group.minima(block, row + kLaneRows * part))); }
};

// total[t * kParts + p] += the products of part p with token t. The parts share what is loaded of a token.
template <class Format, bool kExact, int kTokens, int kParts, class Blocks, class Token>
inline __attribute__((always_inline)) void add_products(const Blocks& blocks, const Token* x, Lanes* total) {
  __m256i high[kTokens * kParts], low[kTokens * kParts];
  for (int i = 0; i < kTokens * kParts; ++i) high[i] = low[i] = _mm256_setzero_si256();
  // Sixteen bits hold the sum of a block of 4-bit codes: 8 * 2 * 15 * 127 = 30480 < 2^15.
  const auto add = [](__m256i sum, __m256i codes, __m256i four, short factor) __attribute__((always_inline)) {
    if constexpr (Format::kFourBits) return _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes, four));
    return _mm256_add_epi32(sum, times(signed_pairs(codes, four), factor));
  };
  const auto add_all = [&](const auto& codes_of, int64_t at) __attribute__((always_inline)) {
    for (int t = 0; t < kTokens; ++t) {
      const __m256i four = four_activations(x[t].high + at),
                    four_low = kExact ? four_activations(x[t].low + at) : _mm256_setzero_si256();
      for (int p = 0; p < kParts; ++p) {
        const __m256i codes = codes_of(p);
        const int i = t * kParts + p;
        high[i] = add(high[i], codes, four, kExact ? 255 : 1);
        if constexpr (kExact) low[i] = add(low[i], codes, four_low, 1);
      }
    }
  };
  unroll<0, Format::kFourBits ? 4 : 8>([&]<int j>() __attribute__((always_inline)) {
    __m256i words[kParts];
    for (int p = 0; p < kParts; ++p) words[p] = blocks.word(j, p);
    if constexpr (Format::kFourBits) {
      const __m256i mask = _mm256_set1_epi8(15);
      add_all(
          [&](int p) __attribute__((always_inline)) { return _mm256_and_si256(words[p], mask); }, 4 * j);
      add_all(
          [&](int p) __attribute__((always_inline)) { return _mm256_and_si256(_mm256_srli_epi16(words[p], 4), mask); },
          16 + 4 * j);
    } else {
      add_all(
          [&](int p) __attribute__((always_inline)) { return words[p]; }, 4 * j);
    }
  });
  for (int i = 0; i < kTokens * kParts; ++i) {
    const Token& token = x[i / kParts];
    __m256i sum = Format::kFourBits ? times(high[i], kExact ? 255 : 1) : high[i];
    if constexpr (kExact) sum = _mm256_add_epi32(sum, Format::kFourBits ? times(low[i], 1) : low[i]);
    if constexpr (Format::kOffset != 0) sum = _mm256_add_epi32(sum, _mm256_set1_epi32(token.offset));
    const __m256 factors = _mm256_mul_ps(blocks.scales(i % kParts), _mm256_set1_ps(token.scale));
    total[i] = _mm256_fmadd_ps(factors, _mm256_cvtepi32_ps(sum), total[i]);
    if constexpr (Format::kHasMin) {
      total[i] = _mm256_fmadd_ps(blocks.minima(i % kParts), _mm256_set1_ps(token.block_sum), total[i]);
    }
  }
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
// Sums of 4-bit codes stay in sixteen bits for the eight words of a block: 8 * 2 * 15 * 127 = 30480 < 2^15.
template <class Format>
inline __m256i dot_tile(__m256i sum, __m256i codes, __m256i four) {
  if constexpr (Format::kFourBits) return _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes, four));
  return _mm256_add_epi32(sum, times(signed_pairs(codes, four), 1));
}
template <class Format>
inline Sum dot_tile(Sum sum, TileWord word, __m256i four) {
  return {dot_tile<Format>(sum.a, word.a, four), dot_tile<Format>(sum.b, word.b, four)};
}
// 255 * high + low + offset, or high + offset.
template <class Format, bool kBoth>
inline __m256i finish_sum(__m256i high, __m256i low, int32_t offset) {
  __m256i sum;
  if constexpr (Format::kFourBits) {
    sum = times(high, kBoth ? 255 : 1);
    if constexpr (kBoth) sum = _mm256_add_epi32(sum, times(low, 1));
  } else {
    sum = kBoth ? _mm256_add_epi32(_mm256_sub_epi32(_mm256_slli_epi32(high, 8), high), low) : high;
  }
  return Format::kOffset == 0 ? sum : _mm256_add_epi32(sum, _mm256_set1_epi32(offset));
}
template <class Format, bool kBoth>
inline F finish_sum(Sum high, Sum low, int32_t offset) {
  return {_mm256_cvtepi32_ps(finish_sum<Format, kBoth>(high.a, low.a, offset)),
          _mm256_cvtepi32_ps(finish_sum<Format, kBoth>(high.b, low.b, offset))};
}

}  // namespace
}  // namespace potstill::kernels
