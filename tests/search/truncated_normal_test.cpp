#include "potstill/search/truncated_normal.h"

#include <gtest/gtest.h>

#include <cmath>

#include "potstill/base/rng.h"

namespace potstill {
namespace {

// log Φ from mpmath with 50 digits: log(erfc(-x / sqrt(2)) / 2).
TEST(LogNdtr, EqualsTheExactLogarithm) {
  const struct {
    double x, log_cdf;
  } kCases[] = {{-100.0, -5005.5242086942050886}, {-38.0, -726.5572160188201301},   {-36.9, -685.33288316535066463},
                {-10.0, -53.231285150512470578},  {-1.0, -1.8410216450092635058},   {0.0, -0.69314718055994530942},
                {2.0, -0.023012909328963488465},  {8.0, -6.2209605742717860585e-16}};
  for (const auto& [x, log_cdf] : kCases) EXPECT_NEAR(log_ndtr(x) / log_cdf, 1.0, 1e-11) << "x = " << x;
}

TEST(LogGaussMass, IsSymmetricAndKeepsItsDigitsInTheTails) {
  EXPECT_NEAR(log_gauss_mass(-1.0, 1.0), std::log(0.68268949213708585), 1e-15);
  EXPECT_DOUBLE_EQ(log_gauss_mass(30.0, 31.0), log_gauss_mass(-31.0, -30.0));
  // Φ(30), Φ(31) are both 1 in double; the mass between is that of the left tail, practically all of Φ(-30).
  EXPECT_NEAR(log_gauss_mass(30.0, 31.0), log_ndtr(-30.0), 1e-12);
}

TEST(TruncatedNormal, QuantileInvertsTheDistribution) {
  Rng rng(7, "test");
  for (int i = 0; i < 2000; ++i) {
    const double a = 60.0 * (rng.uniform() - 0.6), b = a + std::exp(8.0 * rng.uniform() - 4.0), q = rng.uniform();
    const double x = truncated_normal_quantile(q, a, b);
    ASSERT_GE(x, a);
    ASSERT_LE(x, b);
    // Mass left and right of x, each in its own precise tail.
    const double left = std::exp(log_gauss_mass(a, x) - log_gauss_mass(a, b));
    ASSERT_NEAR(left, q, 1e-9) << "q = " << q << " in [" << a << ", " << b << "]";
  }
  EXPECT_EQ(truncated_normal_quantile(0.0, -1.0, 2.0), -1.0);
  EXPECT_EQ(truncated_normal_quantile(1.0, -1.0, 2.0), 2.0);
}

}  // namespace
}  // namespace potstill
