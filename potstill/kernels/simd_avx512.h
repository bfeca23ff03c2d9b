// Sixteen lanes on AVX-512 (F, BW, VL, DQ) with VNNI. Included by kernels_avx512.cpp alone.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "potstill/kernels/lane_group_inl.h"
#include "potstill/kernels/matrix.h"

namespace potstill::kernels {
namespace {

using F = __m512;   // sixteen floats
using F8 = __m256;  // eight floats
constexpr int kFloatTokens = 12, kTileTokens = 6, kFastTileTokens = 6,
              kTileStrips = 2;  // accumulators that fit 32 registers
constexpr int kMatvecTokens = 4;
constexpr bool kTotalsInMemory = false;
constexpr int kAttentionVectors = 4, kAttentionGroups = 4;

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

// ---- matvec: sixteen rows side by side, four codes of each in a lane.
using Lanes = __m512;
constexpr int kLaneRows = 16, kLaneParts = 4;  // four times sixteen rows share the loads of a token
constexpr int64_t kLaneGroup = kLaneRows * kLaneParts;
// How far ahead a product fetches; 0: not at all. So few loads and instructions a line stay that the processor's own
// prefetchers keep up with the memory; prefetching by instruction, line by line, gets less of it.
template <class Format, bool kExact>
constexpr int64_t kLanesAhead = 0;
inline Lanes zero_lanes() { return _mm512_setzero_ps(); }
inline Lanes load_lanes(const float* p) { return _mm512_loadu_ps(p); }
inline void store_lanes(float* p, Lanes x) { _mm512_storeu_ps(p, x); }
inline Lanes add_lanes(Lanes a, Lanes b) { return _mm512_add_ps(a, b); }
inline float first_lane(Lanes x) { return _mm512_cvtss_f32(x); }
inline __m512i four_activations(const int8_t* x) {
  int word;
  std::memcpy(&word, x, 4);
  return _mm512_set1_epi32(word);
}
// 255 * high + low
inline __m512i both_parts(__m512i high, __m512i low) {
  return _mm512_add_epi32(_mm512_slli_epi32(high, 8), _mm512_sub_epi32(low, high));
}

inline __m128i load_128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
// words[j] = word j of sixteen bytes of each row.
inline void load_row_words(const std::byte* p, size_t stride, __m512i* words) {
  __m512i rows[4];
  for (size_t r = 0; r < 4; ++r) {
    const auto two = [&](size_t row) {
      return _mm256_inserti128_si256(_mm256_castsi128_si256(load_128(p + row * stride)),
                                     load_128(p + (row + 4) * stride), 1);
    };
    rows[r] = _mm512_inserti64x4(_mm512_castsi256_si512(two(r)), two(r + 8), 1);
  }
  const __m512i a = _mm512_unpacklo_epi32(rows[0], rows[1]), b = _mm512_unpacklo_epi32(rows[2], rows[3]);
  const __m512i c = _mm512_unpackhi_epi32(rows[0], rows[1]), d = _mm512_unpackhi_epi32(rows[2], rows[3]);
  words[0] = _mm512_unpacklo_epi64(a, b);
  words[1] = _mm512_unpackhi_epi64(a, b);
  words[2] = _mm512_unpacklo_epi64(c, d);
  words[3] = _mm512_unpackhi_epi64(c, d);
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

// A block of each of sixteen rows that lie one after the other. 8-bit codes are code + 128, for they must be unsigned.
template <class Format>
struct FileBlocks {
  __m512i words[Format::kFourBits ? 4 : 8];
  Lanes d, m;

  FileBlocks(const std::byte* p, size_t stride) {
    load_row_words(p + Format::kCodes, stride, words);
    if constexpr (!Format::kFourBits) {
      load_row_words(p + Format::kCodes + 16, stride, words + 4);
      for (auto& word : words) word = _mm512_xor_si512(word, _mm512_set1_epi8(-128));
    }
    __m128i heads[4];
    for (size_t i = 0; i < 4; ++i) heads[i] = load_four_heads(p + 4 * i * stride, stride);
    const auto halves = [](__m128i first, __m128i second) {
      return _mm512_cvtph_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(first), second, 1));
    };
    d = halves(_mm_unpacklo_epi64(heads[0], heads[1]), _mm_unpacklo_epi64(heads[2], heads[3]));
    m = Format::kHasMin ? halves(_mm_unpackhi_epi64(heads[0], heads[1]), _mm_unpackhi_epi64(heads[2], heads[3]))
                        : _mm512_setzero_ps();
  }
  __m512i word(int j, int /*part*/) const { return words[j]; }
  Lanes scales(int /*part*/) const { return d; }
  Lanes minima(int /*part*/) const { return m; }
};
// The same of rows that lie side by side, from `row` of a group on, sixteen a part.
template <class Format>
struct LaneBlocks {
  LaneGroup<Format> group;
  int64_t block, row;

  __m512i word(int j, int part) const {
    const __m512i word = _mm512_loadu_si512(group.codes(block, j, row + kLaneRows * part));
    return Format::kFourBits ? word : _mm512_xor_si512(word, _mm512_set1_epi8(-128));
  }
  Lanes scales(int part) const { return halves(group.scales(block, row + kLaneRows * part)); }
  Lanes minima(int part) const { return halves(group.minima(block, row + kLaneRows * part)); }
  static Lanes halves(const std::byte* p) { return load_half(reinterpret_cast<const uint16_t*>(p)); }
};

// total[t * kParts + p] += the products of part p with token t. The parts share what is loaded of a token.
template <class Format, bool kExact, int kTokens, int kParts, class Blocks, class Token>
inline __attribute__((always_inline)) void add_products(const Blocks& blocks, const Token* x, Lanes* total) {
  __m512i high[kTokens * kParts], low[kTokens * kParts];
  for (int i = 0; i < kTokens * kParts; ++i) {
    const int32_t offset = x[i / kParts].offset;
    low[i] = Format::kFourBits && Format::kOffset == 0 ? _mm512_setzero_si512()
                                                       : _mm512_set1_epi32(Format::kFourBits ? offset : 16 * offset);
    high[i] = kExact ? _mm512_setzero_si512() : low[i];
  }
  const auto add = [&](const __m512i* codes, int64_t at) __attribute__((always_inline)) {
    for (int t = 0; t < kTokens; ++t) {
      const __m512i four = four_activations(x[t].high + at);
      for (int i = t * kParts; i < (t + 1) * kParts; ++i) {
        high[i] = _mm512_dpbusd_epi32(high[i], codes[i - t * kParts], four);
      }
      if constexpr (kExact) {
        const __m512i four_low = four_activations(x[t].low + at);
        for (int i = t * kParts; i < (t + 1) * kParts; ++i) {
          low[i] = _mm512_dpbusd_epi32(low[i], codes[i - t * kParts], four_low);
        }
      }
    }
  };
  unroll<0, Format::kFourBits ? 4 : 8>([&]<int j>() __attribute__((always_inline)) {
    __m512i words[kParts];
    for (int p = 0; p < kParts; ++p) words[p] = blocks.word(j, p);
    if constexpr (Format::kFourBits) {
      const __m512i mask = _mm512_set1_epi8(15);
      __m512i codes[kParts];
      for (int p = 0; p < kParts; ++p) codes[p] = _mm512_and_si512(words[p], mask);
      add(codes, 4 * j);
      for (int p = 0; p < kParts; ++p) codes[p] = _mm512_and_si512(_mm512_srli_epi16(words[p], 4), mask);
      add(codes, 16 + 4 * j);
    } else {
      add(words, 4 * j);
    }
  });
  for (int i = 0; i < kTokens * kParts; ++i) {
    const Token& token = x[i / kParts];
    const __m512i sum = kExact ? both_parts(high[i], low[i]) : high[i];
    const __m512 factors = _mm512_mul_ps(blocks.scales(i % kParts), _mm512_set1_ps(token.scale));
    total[i] = _mm512_fmadd_ps(factors, _mm512_cvtepi32_ps(sum), total[i]);
    if constexpr (Format::kHasMin) {
      total[i] = _mm512_fmadd_ps(blocks.minima(i % kParts), _mm512_set1_ps(token.block_sum), total[i]);
    }
  }
}

// ---- matmul: sixteen rows side by side, four codes of each in a word. Adds the products with four activations.
using Sum = __m512i;
using TileWord = __m512i;
constexpr int kQ8Offset = 128;  // 8-bit codes lie in a tile as code + 128, for they must be unsigned
constexpr bool kSumsHoldBothParts = true;
inline Sum zero_sum() { return _mm512_setzero_si512(); }
inline Sum times_255(Sum sum) { return _mm512_sub_epi32(_mm512_slli_epi32(sum, 8), sum); }
inline TileWord load_tile_word(const uint8_t* tile) { return _mm512_load_si512(tile); }
template <class Format>
inline Sum dot_tile(Sum sum, TileWord word, __m512i four) {
  return _mm512_dpbusd_epi32(sum, word, four);
}
template <class Format, bool kBoth>
inline F finish_sum(Sum sum, Sum, int32_t offset) {
  constexpr int kTimes = Format::kFourBits ? 1 : 16;
  if constexpr (Format::kFourBits && Format::kOffset == 0) return _mm512_cvtepi32_ps(sum);
  return _mm512_cvtepi32_ps(_mm512_add_epi32(sum, _mm512_set1_epi32(kTimes * offset)));
}

}  // namespace
}  // namespace potstill::kernels
