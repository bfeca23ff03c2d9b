#include "potstill/search/parzen.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "potstill/base/jsonl.h"
#include "potstill/search/sampler.h"

namespace potstill {
namespace {

// The space of tests/golden/search/parzen.py: of a case, the parameters that its points have.
Space space_of(const nlohmann::json& golden_case) {
  Space space{{"choice", CategoricalDistribution{{"a", "b", "c"}}},
              {"flat", FloatDistribution{.low = -2.0, .high = 5.0}},
              {"log", FloatDistribution{.low = 1e-5, .high = 1e-2, .log = true}},
              {"log_int", IntDistribution{.low = 1, .high = 64, .log = true}},
              {"stepped", FloatDistribution{.low = 0.0, .high = 0.2, .step = 0.05}},
              {"whole", IntDistribution{.low = 2, .high = 20, .step = 3}}};
  std::erase_if(space, [&](const auto& item) { return !golden_case["points"][0].contains(item.first); });
  return space;
}

const nlohmann::json& golden() {
  static const nlohmann::json json = read_json_file(POTSTILL_SOURCE_DIR "/tests/golden/search/parzen.json");
  return json;
}

std::vector<Params> rows_of(const nlohmann::json& rows) { return rows.get<std::vector<Params>>(); }

TEST(ParzenGolden, DensitiesEqualOptunas) {
  for (const auto& golden_case : golden()["densities"]) {
    const auto observations = rows_of(golden_case["observations"]);
    const ParzenEstimator estimator(space_of(golden_case), observations);
    const auto points = rows_of(golden_case["points"]);
    for (size_t i = 0; i < points.size(); ++i) {
      const double expected = golden_case["log_pdf"][i];
      EXPECT_NEAR(estimator.log_pdf(points[i]), expected, 1e-9 * std::abs(expected)) << observations.size();
    }
  }
}

TEST(ParzenGolden, WidthsAndWeightsEqualOptunas) {
  for (const auto& golden_case : golden()["densities"]) {
    const auto observations = rows_of(golden_case["observations"]);
    const ParzenEstimator estimator(space_of(golden_case), observations);
    const std::vector<double> weights = golden_case["weights"];
    ASSERT_EQ(estimator.weights().size(), weights.size());
    for (size_t k = 0; k < weights.size(); ++k) EXPECT_NEAR(estimator.weights()[k], weights[k], 1e-15);
    for (const auto& [name, widths] : golden_case["widths"].items()) {
      const auto ours = estimator.widths(name);
      const auto theirs = widths.get<std::vector<double>>();
      ASSERT_EQ(ours.size(), theirs.size());
      for (size_t k = 0; k < ours.size(); ++k) EXPECT_NEAR(ours[k], theirs[k], 1e-12) << name << " " << k;
    }
  }
}

// By hand: neighbours at 0.2, 0.5, 0.9 in [0, 1]; the least width is 1 / min(100, 2 + 3); the prior's is the range.
TEST(Parzen, WidthIsTheDistanceToTheFartherNeighbour) {
  const Space space{{"x", FloatDistribution{.low = 0.0, .high = 1.0}}};
  const std::vector<Params> observations{{{"x", 0.5}}, {{"x", 0.9}}, {{"x", 0.2}}};
  const auto widths = ParzenEstimator(space, observations).widths("x");
  const std::vector<double> expected{0.4, 0.4, 0.3, 1.0};
  ASSERT_EQ(widths.size(), expected.size());
  for (size_t k = 0; k < expected.size(); ++k) EXPECT_NEAR(widths[k], expected[k], 1e-15);
}

TEST(Parzen, ContinuousDensitiesIntegrateToOne) {
  Rng rng(7, "test");
  for (const bool log : {false, true}) {
    const FloatDistribution distribution{.low = 0.01, .high = 2.0, .log = log};
    const Space space{{"x", distribution}};
    for (const int count : {0, 1, 2, 10, 40}) {
      std::vector<Params> observations;
      for (int i = 0; i < count; ++i) observations.push_back(sample_uniformly(space, rng));
      const ParzenEstimator estimator(space, observations);
      // Midpoint rule in the space of the density: x itself, or its logarithm.
      const double low = log ? std::log(distribution.low) : distribution.low;
      const double high = log ? std::log(distribution.high) : distribution.high;
      constexpr int kSteps = 4000;
      double sum = 0.0;
      for (int i = 0; i < kSteps; ++i) {
        const double t = low + (i + 0.5) / kSteps * (high - low);
        sum += std::exp(estimator.log_pdf({{"x", log ? std::exp(t) : t}})) * (high - low) / kSteps;
      }
      EXPECT_NEAR(sum, 1.0, 1e-5) << count << " observations" << (log ? ", log" : "");
    }
  }
}

TEST(Parzen, SteppedAndCategoricalProbabilitiesSumToOne) {
  Rng rng(7, "test");
  const std::vector<std::pair<Distribution, std::vector<double>>> cases{
      {FloatDistribution{.low = 0.0, .high = 0.2, .step = 0.05}, {0.0, 0.05, 0.1, 0.15, 0.2}},
      {IntDistribution{.low = 1, .high = 6, .log = true}, {1, 2, 3, 4, 5, 6}},
      {CategoricalDistribution{{"a", "b", "c"}}, {0, 1, 2}}};
  for (const auto& [distribution, values] : cases) {
    const Space space{{"x", distribution}};
    for (const int count : {0, 1, 2, 10, 40}) {
      std::vector<Params> observations;
      for (int i = 0; i < count; ++i) observations.push_back({{"x", values[rng.below(values.size())]}});
      const ParzenEstimator estimator(space, observations);
      double sum = 0.0;
      for (const double value : values) sum += std::exp(estimator.log_pdf({{"x", value}}));
      EXPECT_NEAR(sum, 1.0, 1e-12) << count << " observations";
    }
  }
}

// The share of draws in each of 20 equal cells against the integral of the density there: 40,000 draws, five standard
// errors of a share are below 0.0125.
TEST(Parzen, DrawsFollowTheDensity) {
  const FloatDistribution distribution{.low = 1e-3, .high = 1.0, .log = true};
  const Space space{{"x", distribution}};
  const std::vector<Params> observations{{{"x", 0.002}}, {{"x", 0.5}}, {{"x", 0.4}}, {{"x", 0.003}}};
  const ParzenEstimator estimator(space, observations);
  constexpr int kCells = 20, kDraws = 40000, kSteps = 200;
  std::vector<double> share(kCells);
  Rng rng(7, "test");
  for (int i = 0; i < kDraws; ++i) {
    const double x = estimator.sample(rng).at("x");
    ASSERT_GE(x, 1e-3);
    ASSERT_LE(x, 1.0);
    const auto cell = static_cast<size_t>(std::clamp(kCells * (1.0 + std::log10(x) / 3.0), 0.0, kCells - 1.0));
    share[cell] += 1.0 / kDraws;
  }
  const double width = std::log(1000.0) / kCells;
  for (int cell = 0; cell < kCells; ++cell) {
    double expected = 0.0;
    for (int i = 0; i < kSteps; ++i) {
      const double t = std::log(1e-3) + width * (cell + (i + 0.5) / kSteps);
      expected += std::exp(estimator.log_pdf({{"x", std::exp(t)}})) * width / kSteps;
    }
    EXPECT_NEAR(share[static_cast<size_t>(cell)], expected, 0.0125) << "cell " << cell;
  }
}

TEST(Parzen, OldObservationsWeighLess) {
  EXPECT_EQ(observation_weights(0), std::vector<double>{});
  EXPECT_EQ(observation_weights(25), std::vector<double>(25, 1.0));
  const auto weights = observation_weights(28);
  EXPECT_DOUBLE_EQ(weights[0], 1.0 / 28);
  EXPECT_DOUBLE_EQ(weights[1], (1.0 + 1.0 / 28) / 2);
  EXPECT_EQ(std::ranges::count(weights, 1.0), 26);
}

}  // namespace
}  // namespace potstill
