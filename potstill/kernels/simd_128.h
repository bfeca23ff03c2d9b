// Sixteen lanes as four 128-bit registers, by the vector types that gcc and clang have on every machine: SSE2 on
// x86-64, NEON on AArch64. With POTSTILL_NEON_DOTPROD the integer products and the conversions of halves are NEON's
// own. Included by kernels_portable.cpp and kernels_neon.cpp.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "potstill/base/dtype.h"
#include "potstill/kernels/lane_group_inl.h"
#include "potstill/kernels/matrix.h"
#ifdef POTSTILL_NEON_DOTPROD
#include <arm_neon.h>
#endif

namespace potstill::kernels {
namespace {

using F4 = float __attribute__((vector_size(16)));
using I4 = int32_t __attribute__((vector_size(16)));
struct F {  // sixteen floats
  F4 v[4];
};
struct F8 {  // eight floats
  F4 v[2];
};
constexpr int kFloatTokens = 4, kTileTokens = 4, kFastTileTokens = 4, kTileStrips = 1;
constexpr bool kTotalsInMemory = false;
constexpr int kAttentionVectors = 1, kAttentionGroups = 1;

template <class Function>
inline F map(Function function) {
  return {{function(0), function(1), function(2), function(3)}};
}
inline F4 broadcast4(float x) { return F4{x, x, x, x}; }
inline F4 load4(const float* p) {
  F4 x;
  std::memcpy(&x, p, sizeof(x));
  return x;
}

inline F zero() { return {}; }
inline F broadcast(float x) {
  return map([&](int) { return broadcast4(x); });
}
inline F load(const float* p) {
  return map([&](int i) { return load4(p + 4 * i); });
}
inline void store(float* p, F x) { std::memcpy(p, &x, sizeof(x)); }
inline F load_up_to_16(const float* p, int64_t count) {  // zeros after the last
  if (count >= 16) return load(p);
  float padded[16] = {};
  for (int64_t i = 0; i < count; ++i) padded[i] = p[i];
  return load(padded);
}
inline F add(F x, F y) {
  return map([&](int i) { return x.v[i] + y.v[i]; });
}
inline F sub(F x, F y) {
  return map([&](int i) { return x.v[i] - y.v[i]; });
}
inline F mul(F x, F y) {
  return map([&](int i) { return x.v[i] * y.v[i]; });
}
inline F div(F x, F y) {
  return map([&](int i) { return x.v[i] / y.v[i]; });
}
inline F4 select4(I4 mask, F4 yes, F4 no) {
  return reinterpret_cast<F4>((mask & reinterpret_cast<I4>(yes)) | (~mask & reinterpret_cast<I4>(no)));
}
inline F max(F x, F y) {
  return map([&](int i) { return select4(x.v[i] > y.v[i], x.v[i], y.v[i]); });
}
inline F min(F x, F y) {
  return map([&](int i) { return select4(x.v[i] < y.v[i], x.v[i], y.v[i]); });
}
inline F fma(F x, F y, F z) {  // fused where the machine has it and -ffp-contract=fast sees it
  return map([&](int i) { return x.v[i] * y.v[i] + z.v[i]; });
}
inline F abs(F x) {
  const I4 mask = I4{} + 0x7fffffff;
  return map([&](int i) { return reinterpret_cast<F4>(reinterpret_cast<I4>(x.v[i]) & mask); });
}

// Halves are folded together, as the wider instruction sets do, so that all sets add in the same order.
inline float reduce4(F4 s) { return (s[0] + s[2]) + (s[1] + s[3]); }
inline float reduce_add8(F8 x) { return reduce4(x.v[0] + x.v[1]); }
inline F8 fold(F x) { return {{x.v[0] + x.v[2], x.v[1] + x.v[3]}}; }
inline float reduce_add(F x) { return reduce_add8(fold(x)); }
inline float reduce_max(F x) {
  float best = x.v[0][0];
  for (int i = 0; i < 16; ++i) best = x.v[i / 4][i % 4] > best ? x.v[i / 4][i % 4] : best;
  return best;
}
constexpr float kRoundMagic = 12582912.0f;  // 1.5 * 2^23: adding it leaves no bits below one
inline F round_even(F x) {                  // |x| < 2^22
  F t = add(x, broadcast(kRoundMagic));
  for (auto& v : t.v) asm volatile("" : "+m"(v));  // keeps the compiler from cancelling the two additions
  return sub(t, broadcast(kRoundMagic));
}
// p * 2^n, where t = n + 1.5 * 2^23 holds n in its low bits.
inline F scale_by_pow2(F p, F t) {
  return map(
      [&](int i) { return reinterpret_cast<F4>(reinterpret_cast<I4>(p.v[i]) + (reinterpret_cast<I4>(t.v[i]) << 23)); });
}

#ifdef POTSTILL_NEON_DOTPROD
inline F load_half(const uint16_t* p) {
  return map([&](int i) { return F4(vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i)))); });
}
inline void store_half(uint16_t* p, F x) {
  for (int i = 0; i < 4; ++i) vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(float32x4_t(x.v[i]))));
}
#else
inline F load_half(const uint16_t* p) {
  return map([&](int i) {
    const uint16_t* q = p + 4 * i;
    return F4{half_to_float(q[0]), half_to_float(q[1]), half_to_float(q[2]), half_to_float(q[3])};
  });
}
inline void store_half(uint16_t* p, F x) {
  for (int i = 0; i < 16; ++i) p[i] = float_to_half(x.v[i / 4][i % 4]);
}
#endif
// The lower and the upper half of each word, as fp16.
inline F halves(const uint32_t* words, int shift) {
  uint16_t bits[16];
  for (int i = 0; i < 16; ++i) bits[i] = static_cast<uint16_t>(words[i] >> shift);
  return load_half(bits);
}
inline F low_halves(const uint32_t* words) { return halves(words, 0); }
inline F high_halves(const uint32_t* words) { return halves(words, 16); }
inline F load_bfloat(const uint16_t* p) {
  float x[16];
  for (int i = 0; i < 16; ++i) {
    const uint32_t bits = static_cast<uint32_t>(p[i]) << 16;
    std::memcpy(&x[i], &bits, 4);
  }
  return load(x);
}
template <class T>
inline F load_integers(const T* p) {
  float x[16];
  for (int i = 0; i < 16; ++i) x[i] = static_cast<float>(p[i]);
  return load(x);
}
inline F load_i8(const int8_t* p) { return load_integers(p); }
inline void store_i8(int8_t* p, F x) {  // x whole and in [-128, 127]
  for (int i = 0; i < 16; ++i) p[i] = static_cast<int8_t>(x.v[i / 4][i % 4]);
}

// ---- matvec: one block of a row at a time; codes are signed, so no offset is left over.
using Lanes = F4;
constexpr int64_t kLaneGroup = 0;  // rows are taken as they are in the file
inline Lanes zero_lanes() { return Lanes{}; }
struct Terms {  // a token's block
  const int8_t *high, *low;
  Lanes scales, block_sums;  // the sum is in the first lane alone
};

inline Lanes broadcast_half(const std::byte* p) {
  uint16_t x;
  std::memcpy(&x, p, 2);
#ifdef POTSTILL_NEON_DOTPROD
  return F4(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(x))));
#else
  return broadcast4(half_to_float(x));
#endif
}
// ---- matmul: sixteen rows side by side, four codes of each in a word. Adds the products with four activations.
struct Sum {
  I4 v[4];
};
constexpr int kQ8Offset = 0;
constexpr bool kSumsHoldBothParts = true;
inline Sum zero_sum() { return {}; }
inline Sum times_255(Sum sum) {
  for (auto& v : sum.v) v = v * 255;
  return sum;
}
template <class Format, bool kBoth>
inline F finish_sum(Sum sum, Sum, int32_t offset) {
  return map([&](int i) { return __builtin_convertvector(Format::kOffset == 0 ? sum.v[i] : sum.v[i] + offset, F4); });
}

#ifdef POTSTILL_NEON_DOTPROD
struct Weights {
  int8x16_t low, high;  // elements 0..15 and 16..31
  Lanes scales, minima;
};
template <class Format>
inline Weights load_weights(const std::byte* p) {
  const auto* codes = reinterpret_cast<const uint8_t*>(p) + Format::kCodes;
  const Lanes minima = Format::kHasMin ? broadcast_half(p + 2) : Lanes{};
  const uint8x16_t q = vld1q_u8(codes);
  if constexpr (Format::kFourBits) {
    const int8x16_t offset = vdupq_n_s8(static_cast<int8_t>(Format::kOffset));
    return {vsubq_s8(vreinterpretq_s8_u8(vandq_u8(q, vdupq_n_u8(15))), offset),
            vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(q, 4)), offset), broadcast_half(p), minima};
  } else {
    return {vreinterpretq_s8_u8(q), vreinterpretq_s8_u8(vld1q_u8(codes + 16)), broadcast_half(p), minima};
  }
}
template <bool kExact>
inline Lanes dot(const Weights& weights, const Terms& x) {
  const auto products = [&](int32x4_t start, const int8_t* codes) {
    return vdotq_s32(vdotq_s32(start, weights.low, vld1q_s8(codes)), weights.high, vld1q_s8(codes + 16));
  };
  int32x4_t sum = products(vdupq_n_s32(0), x.high);
  if constexpr (kExact) sum = products(vmulq_n_s32(sum, 255), x.low);
  return F4(vcvtq_f32_s32(sum));
}
struct TileWord {
  int8x16_t v[4];
};
inline TileWord load_tile_word(const uint8_t* tile) {
  TileWord word;
  for (int i = 0; i < 4; ++i) word.v[i] = vreinterpretq_s8_u8(vld1q_u8(tile + 16 * i));
  return word;
}
inline int8x16_t four_activations(const int8_t* x) {
  int32_t word;
  std::memcpy(&word, x, 4);
  return vreinterpretq_s8_s32(vdupq_n_s32(word));
}
template <class Format>
inline Sum dot_tile(Sum sum, TileWord word, int8x16_t four) {
  for (int i = 0; i < 4; ++i) sum.v[i] = I4(vdotq_s32(int32x4_t(sum.v[i]), word.v[i], four));
  return sum;
}
#else
struct Weights {
  int8_t codes[32];
  Lanes scales, minima;
};
template <class Format>
inline Weights load_weights(const std::byte* p) {
  Weights weights;
  const auto* codes = reinterpret_cast<const uint8_t*>(p) + Format::kCodes;
  if constexpr (Format::kFourBits) {
    for (int i = 0; i < 16; ++i) {
      weights.codes[i] = static_cast<int8_t>((codes[i] & 15) - static_cast<int>(Format::kOffset));
      weights.codes[i + 16] = static_cast<int8_t>((codes[i] >> 4) - static_cast<int>(Format::kOffset));
    }
  } else {
    std::memcpy(weights.codes, codes, 32);
  }
  weights.scales = broadcast_half(p);
  weights.minima = Format::kHasMin ? broadcast_half(p + 2) : Lanes{};
  return weights;
}
template <bool kExact>
inline Lanes dot(const Weights& weights, const Terms& x) {
  int32_t sums[4] = {};
  for (int i = 0; i < 32; ++i) {
    sums[i % 4] += weights.codes[i] * (kExact ? x.high[i] * 255 + x.low[i] : static_cast<int>(x.high[i]));
  }
  return F4{static_cast<float>(sums[0]), static_cast<float>(sums[1]), static_cast<float>(sums[2]),
            static_cast<float>(sums[3])};
}
struct TileWord {
  const int8_t* codes;
};
struct FourActivations {
  int8_t x[4];
};
inline TileWord load_tile_word(const uint8_t* tile) { return {reinterpret_cast<const int8_t*>(tile)}; }
inline FourActivations four_activations(const int8_t* x) { return {{x[0], x[1], x[2], x[3]}}; }
template <class Format>
inline Sum dot_tile(Sum sum, TileWord word, FourActivations four) {
  int32_t lanes[16];
  for (int i = 0; i < 16; ++i) {
    lanes[i] = 0;
    for (int j = 0; j < 4; ++j) lanes[i] += word.codes[4 * i + j] * four.x[j];
  }
  for (int i = 0; i < 4; ++i) {
    I4 v;
    std::memcpy(&v, lanes + 4 * i, sizeof(v));
    sum.v[i] += v;
  }
  return sum;
}
#endif

}  // namespace
}  // namespace potstill::kernels
