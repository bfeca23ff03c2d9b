#include "potstill/eval/seeded_scores.h"

#include <gtest/gtest.h>

#include <cmath>

#include "potstill/base/rng.h"
#include "potstill/eval/student_t.h"

namespace potstill {
namespace {

TEST(StudentT, QuantilesAreThoseOfTheTables) {
  // scipy.stats.t.ppf 1.17
  EXPECT_NEAR(student_t_quantile(0.975, 1), 12.706204736174707, 1e-8);
  EXPECT_NEAR(student_t_quantile(0.975, 4), 2.7764451051977987, 1e-9);
  EXPECT_NEAR(student_t_quantile(0.975, 30), 2.0422724563012373, 1e-9);
  EXPECT_NEAR(student_t_quantile(0.975, 1e6), 1.959966, 1e-5);
  EXPECT_NEAR(student_t_quantile(0.025, 4), -2.7764451051977987, 1e-9);
  EXPECT_EQ(student_t_quantile(0.5, 3), 0.0);
}

TEST(StudentT, MeanOfFewValues) {
  const auto result = mean_interval({1.0, 2.0, 3.0, 4.0, 5.0});
  EXPECT_DOUBLE_EQ(result.mean, 3.0);
  EXPECT_NEAR(result.interval.high - 3.0, 2.7764451051977987 * std::sqrt(2.5 / 5), 1e-9);
  EXPECT_TRUE(std::isnan(mean_interval({1.0}).interval.low));
}

// score = seed effect + row effect + noise; the interval of a mean of zero should hold zero in about 95 of 100 cases.
TEST(SeededScores, IntervalsHoldTheTruthAboutAsOftenAsTheySay) {
  constexpr int kTrials = 600;
  int held = 0, ratio_held = 0, ratio_known = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    Rng rng(static_cast<uint64_t>(trial), "seeded_scores_test");
    SeededScores a, b;
    std::vector<double> seed_a(5), seed_b(5);
    for (auto& s : seed_a) s = 0.3 * rng.normal();
    for (auto& s : seed_b) s = 0.3 * rng.normal();
    for (const char* task : {"x", "y"}) {
      std::vector<double> row(60);
      for (auto& r : row) r = rng.normal();
      for (size_t s = 0; s < 5; ++s) {
        auto &rows_a = a[task].emplace_back(), &rows_b = b[task].emplace_back();
        for (const double r : row) {
          rows_a.push_back(seed_a[s] + r + 0.5 * rng.normal());
          rows_b.push_back(4.0 + seed_b[s] + r + 0.5 * rng.normal());
        }
      }
    }
    const auto mean = seeded_mean(a);
    EXPECT_EQ(mean.seeds, 5);
    EXPECT_EQ(mean.rows, 120);
    held += mean.interval.low <= 0 && mean.interval.high >= 0;
    SeededScores twice = b;  // the truth of a + 2 b over b is 2
    for (auto& [task, seeds] : twice) {
      for (size_t s = 0; s < seeds.size(); ++s) {
        for (size_t r = 0; r < seeds[s].size(); ++r) seeds[s][r] = 2 * seeds[s][r] + a[task][s][r];
      }
    }
    const auto ratio = seeded_ratio(twice, b);
    if (!ratio.interval) continue;
    ++ratio_known;
    ratio_held += ratio.interval->low <= 2 && ratio.interval->high >= 2;
  }
  // Two standard errors of a share of 0.95 in 600 are 0.018; the row part is counted on the safe side.
  EXPECT_GE(held, 0.925 * kTrials);
  EXPECT_LE(held, 0.995 * kTrials);
  EXPECT_EQ(ratio_known, kTrials);
  EXPECT_GE(ratio_held, 0.925 * kTrials);
}

TEST(SeededScores, ARatioToNothingHasNoInterval) {
  SeededScores a{{"x", {{1, 1, 1}, {1, 1, 0}}}}, b{{"x", {{1, -1, 0}, {0, 1, -1}}}};
  EXPECT_FALSE(seeded_ratio(a, b).interval);
}

TEST(SeededScores, DifferencesArePairedBySeedAndRow) {
  const SeededScores a{{"x", {{1, 0, 1}, {1, 1, 1}}}}, b{{"x", {{0, 0, 1}, {0, 1, 1}}}};
  const auto difference = seeded_mean(minus(a, b));
  EXPECT_NEAR(difference.mean, 1.0 / 3, 1e-12);
  const auto alone = seeded_mean({{"x", {{1, 0, 1}}}});
  EXPECT_TRUE(std::isnan(alone.interval.low));  // one seed says nothing of what seeds scatter
}

}  // namespace
}  // namespace potstill
