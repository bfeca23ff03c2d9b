// Sixteen lanes as four 128-bit registers, by the vector types that gcc and clang have on every machine: SSE2 on
// x86-64, NEON on AArch64. With POTSTILL_NEON_DOTPROD the integer products and the conversions of halves are NEON's
// own. Included by kernels_portable.cpp and kernels_neon.cpp.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "potstill/base/dtype.h"
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
constexpr int kMatmulTokens = 4, kIntMatmulTokens = 4;
constexpr int kAttentionVectors = 1;

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

// The codes 0..15 of a block: bytes hold element j low and element j + 16 high.
inline void unpack_u4(const uint8_t* qs, F& low, F& high) {
  uint8_t codes[32];
  for (int i = 0; i < 16; ++i) {
    codes[i] = qs[i] & 15;
    codes[i + 16] = qs[i] >> 4;
  }
  low = load_integers(codes);
  high = load_integers(codes + 16);
}

// Byte b of each of sixteen words, as float.
inline F byte_of(const uint8_t* words, int b) {
  uint8_t bytes[16];
  for (int i = 0; i < 16; ++i) bytes[i] = words[4 * i + b];
  return load_integers(bytes);
}

inline void set_zero(F8& x) { x = {}; }
inline void set_zero(F& x) { x = {}; }
inline F8 add8(F8 a, F8 b) { return {{a.v[0] + b.v[0], a.v[1] + b.v[1]}}; }
inline F8 fma8(F8 a, float b, F8 c) {
  const F4 scale = broadcast4(b);
  return {{a.v[0] * scale + c.v[0], a.v[1] * scale + c.v[1]}};
}

// A tile: sixteen rows side by side, four codes of each in a word. Adds the products with four activations.
struct Sum {
  I4 v[4];
};
constexpr int kQ8Offset = 0;
inline Sum zero_sum() { return {}; }
inline F finish_q8(Sum sum) {
  return map([&](int i) { return __builtin_convertvector(sum.v[i], F4); });
}
inline F finish_u4(Sum sum) { return finish_q8(sum); }

#ifdef POTSTILL_NEON_DOTPROD
// Integer products of one block of a row with a block of 8-bit activations; the sum of the lanes is the dot product.
inline F8 block_dot(int8x16_t low, int8x16_t high, const int8_t* x) {
  const int32x4_t none = vdupq_n_s32(0);
  return {{F4(vcvtq_f32_s32(vdotq_s32(none, low, vld1q_s8(x)))),
           F4(vcvtq_f32_s32(vdotq_s32(none, high, vld1q_s8(x + 16))))}};
}
inline F8 block_dot_u4(const uint8_t* qs, const int8_t* x) {
  const uint8x16_t q = vld1q_u8(qs);
  return block_dot(vreinterpretq_s8_u8(vandq_u8(q, vdupq_n_u8(15))), vreinterpretq_s8_u8(vshrq_n_u8(q, 4)), x);
}
inline F8 block_dot_s8(const int8_t* q, const int8_t* x) { return block_dot(vld1q_s8(q), vld1q_s8(q + 16), x); }
inline Sum dot_q8(Sum sum, const uint8_t* tile, const int8_t* x) {
  int32_t word;
  std::memcpy(&word, x, 4);
  const int8x16_t activations = vreinterpretq_s8_s32(vdupq_n_s32(word));
  for (int i = 0; i < 4; ++i) {
    sum.v[i] = I4(vdotq_s32(int32x4_t(sum.v[i]), vreinterpretq_s8_u8(vld1q_u8(tile + 16 * i)), activations));
  }
  return sum;
}
#else
template <class T>
inline F8 block_dot(const T* codes, const int8_t* x) {
  float lanes[8];
  for (int i = 0; i < 8; ++i) {
    int32_t sum = 0;
    for (int j = 0; j < 4; ++j) sum += codes[4 * i + j] * x[4 * i + j];
    lanes[i] = static_cast<float>(sum);
  }
  return {{load4(lanes), load4(lanes + 4)}};
}
inline F8 block_dot_u4(const uint8_t* qs, const int8_t* x) {
  uint8_t codes[32];
  for (int i = 0; i < 16; ++i) {
    codes[i] = qs[i] & 15;
    codes[i + 16] = qs[i] >> 4;
  }
  return block_dot(codes, x);
}
inline F8 block_dot_s8(const int8_t* q, const int8_t* x) { return block_dot(q, x); }
inline Sum dot_q8(Sum sum, const uint8_t* tile, const int8_t* x) {
  int32_t lanes[16];
  for (int i = 0; i < 16; ++i) {
    lanes[i] = 0;
    for (int j = 0; j < 4; ++j) lanes[i] += static_cast<int8_t>(tile[4 * i + j]) * x[j];
  }
  for (int i = 0; i < 4; ++i) {
    I4 four;
    std::memcpy(&four, lanes + 4 * i, sizeof(four));
    sum.v[i] += four;
  }
  return sum;
}
#endif
inline Sum dot_u4(Sum sum, const uint8_t* tile, const int8_t* x) { return dot_q8(sum, tile, x); }

}  // namespace
}  // namespace potstill::kernels
