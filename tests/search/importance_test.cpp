#include "potstill/search/importance.h"

#include <gtest/gtest.h>

#include <cmath>

#include "potstill/search/sobol.h"
#include "potstill/search/unit_cube.h"

namespace potstill {
namespace {

const Space kSpace{{"x", FloatDistribution{.low = -1.0, .high = 1.0}},
                   {"y", FloatDistribution{.low = 0.0, .high = 1.0}},
                   {"rank", CategoricalDistribution{{4, 8, 16}}}};

// value = 2 + (x - 0.5)² + 0.01 y: almost all of it hangs on x.
std::vector<PastTrial> trials_of(size_t count) {
  std::vector<PastTrial> trials;
  Rng rng(3, "importance_test");
  for (const auto& point : scrambled_sobol_points(kSpace.size(), count, rng)) {
    PastTrial trial{.number = static_cast<int64_t>(trials.size()), .params = params_from_unit(kSpace, point)};
    trial.value = 2.0 + std::pow(trial.params["x"] - 0.5, 2) + 0.01 * trial.params["y"];
    trials.push_back(trial);
  }
  return trials;
}

TEST(Importance, TheParameterThatMattersHasTheLargestShare) {
  const auto shares = parameter_importance(kSpace, trials_of(24));
  EXPECT_GT(shares.at("x"), 0.9);
  EXPECT_NEAR(shares.at("x") + shares.at("y") + shares.at("rank"), 1.0, 1e-9);
  EXPECT_TRUE(parameter_importance(kSpace, trials_of(3)).empty());
}

TEST(Importance, AProfileFollowsTheObjectiveInItsOwnUnit) {
  const auto profile = parameter_profile(kSpace, trials_of(24), "x", 9);
  ASSERT_EQ(profile.size(), 9u);
  EXPECT_EQ(profile.front().value, -1.0);
  EXPECT_EQ(profile.back().value, 1.0);
  for (const auto& point : profile) {
    EXPECT_NEAR(point.expected, 2.005 + std::pow(point.value.get<double>() - 0.5, 2), 0.15) << point.value;
    EXPECT_LE(point.low, point.expected);
    EXPECT_GE(point.high, point.expected);
  }
  const auto ranks = parameter_profile(kSpace, trials_of(24), "rank");
  ASSERT_EQ(ranks.size(), 3u);
  EXPECT_EQ(ranks[2].value, 16);
  EXPECT_TRUE(parameter_profile(kSpace, trials_of(24), "z").empty());
}

}  // namespace
}  // namespace potstill
