#include "potstill/base/dtype.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

namespace potstill {
namespace {

// The definition: among all finite halves the nearest to the value, the one with the even bit pattern on a tie.
uint16_t nearest_half(double value) {
  uint16_t best = 0;
  double best_distance = std::numeric_limits<double>::infinity();
  for (uint32_t bits = 0; bits < 0x7c00; ++bits) {
    const double distance = std::abs(std::abs(value) - static_cast<double>(half_to_float(static_cast<uint16_t>(bits))));
    if (distance < best_distance || (distance == best_distance && bits % 2 == 0)) {
      best = static_cast<uint16_t>(bits);
      best_distance = distance;
    }
  }
  return static_cast<uint16_t>(best | (std::signbit(value) ? 0x8000 : 0));
}

TEST(Half, EveryHalfSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    if ((bits & 0x7c00) == 0x7c00 && (bits & 0x3ff) != 0) {
      EXPECT_TRUE(std::isnan(half_to_float(half)));
      EXPECT_TRUE(std::isnan(half_to_float(float_to_half(half_to_float(half)))));
    } else {
      EXPECT_EQ(float_to_half(half_to_float(half)), half) << bits;
    }
  }
}

TEST(Half, RoundsToNearestEven) {
  for (const float value : {1.0009765f, 1.0004883f, 1.0014648f, 0.1f, -3.14159f, 65504.0f, 65503.9f, 6.1e-5f, 6.0e-5f,
                            5.97e-8f, 2.98e-8f, 2.9802322e-8f, 1e-8f, 333.3f, -0.0f}) {
    EXPECT_EQ(float_to_half(value), nearest_half(value)) << value;
  }
  EXPECT_EQ(float_to_half(65520.0f), 0x7c00);  // half way to 65536 rounds to even, which is infinity
  EXPECT_EQ(float_to_half(65519.99f), 0x7bff);
}

TEST(BFloat16, RoundsToNearestEvenAndKeepsNan) {
  EXPECT_EQ(float_to_bfloat16(1.0f), 0x3f80);
  EXPECT_EQ(float_to_bfloat16(std::bit_cast<float>(0x3f808000u)), 0x3f80);  // tie to even
  EXPECT_EQ(float_to_bfloat16(std::bit_cast<float>(0x3f818000u)), 0x3f82);
  EXPECT_EQ(float_to_bfloat16(std::bit_cast<float>(0x3f808001u)), 0x3f81);
  EXPECT_TRUE(std::isnan(bfloat16_to_float(float_to_bfloat16(std::bit_cast<float>(0x7f800001u)))));
}

TEST(TensorBytes, CountsBlocksAndRefusesWhatCannotBe) {
  using Shape = std::vector<int64_t>;
  EXPECT_EQ(tensor_bytes(DType::kF32, Shape{2, 3}), 24u);
  EXPECT_EQ(tensor_bytes(DType::kQ4_0, Shape{2, 64}), 72u);
  EXPECT_EQ(tensor_bytes(DType::kF16, Shape{}), 2u);  // a scalar
  EXPECT_EQ(tensor_bytes(DType::kF16, Shape{0, 7}), 0u);
  EXPECT_FALSE(tensor_bytes(DType::kQ4_0, Shape{2, 33}));
  EXPECT_FALSE(tensor_bytes(DType::kF32, Shape{-1, 3}));
  EXPECT_FALSE(tensor_bytes(DType::kF32, Shape{int64_t{1} << 40, int64_t{1} << 40}));
  EXPECT_FALSE(tensor_bytes(DType::kF64, Shape{int64_t{1} << 62}));
}

}  // namespace
}  // namespace potstill
