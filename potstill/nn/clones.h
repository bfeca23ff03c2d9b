// Plain loops that the compiler vectorises, once for each instruction set: the loader picks the widest that the machine
// has. Files that use it are compiled with -O3 -ffp-contract=fast (nn/CMakeLists.txt, distill/CMakeLists.txt).
#pragma once

#include <bit>
#include <cstdint>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_THREAD__) && \
    !defined(__SANITIZE_ADDRESS__)
#define POTSTILL_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define POTSTILL_CLONES
#endif
#define POTSTILL_INLINE inline __attribute__((always_inline))

namespace potstill {

// exp for loops without a call: within 2 ulp for x in [-87, 88], exp(-87) below.     Cephes' expf: Cody–Waite, degree 5
POTSTILL_INLINE float loop_exp(float x) {
  x = x < -87.f ? -87.f : x > 88.f ? 88.f : x;
  constexpr float kRound = 12582912.f;  // 1.5 · 2²³: adding it rounds to a whole number
  const float n = x * 1.44269504f + kRound;
  const float whole = n - kRound;
  const float r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.f;
  return std::bit_cast<float>(std::bit_cast<int32_t>(p) + (std::bit_cast<int32_t>(n) << 23));
}

// bf16 as its bits; stores round to nearest, ties to even.
struct Bf16Bits {
  uint16_t bits;
};
POTSTILL_INLINE float load_value(const float* x) { return *x; }
POTSTILL_INLINE float load_value(const Bf16Bits* x) {
  return std::bit_cast<float>(static_cast<uint32_t>(x->bits) << 16);
}
POTSTILL_INLINE void store_value(float* x, float value) { *x = value; }
POTSTILL_INLINE void store_value(Bf16Bits* x, float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  x->bits = static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
POTSTILL_INLINE float round_as(const float*, float value) { return value; }
POTSTILL_INLINE float round_as(const Bf16Bits*, float value) {
  Bf16Bits rounded{};
  store_value(&rounded, value);
  return load_value(&rounded);
}

}  // namespace potstill
