#include "potstill/search/median_pruner.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "potstill/search/importance.h"

namespace potstill {
namespace {

std::vector<PastTrial> five_trials() {  // at step 10: 1, 2, 3, 4, 5; at step 20 only two of them
  std::vector<PastTrial> trials;
  for (int64_t i = 0; i < 5; ++i) {
    trials.push_back({.number = i, .intermediate = {{10, 1.0 + static_cast<double>(i)}}});
    if (i < 2) trials.back().intermediate[20] = 1.0;
  }
  return trials;
}

PastTrial running(std::map<int64_t, double> reports) {
  return {.number = 9, .state = TrialState::kRunning, .intermediate = std::move(reports)};
}

TEST(MedianPruner, GivesUpWhatIsBehindTheMedianOfItsStep) {
  const auto trials = five_trials();
  EXPECT_FALSE(is_behind_median(trials, running({{10, 3.0}})));
  EXPECT_TRUE(is_behind_median(trials, running({{10, 3.1}})));
  EXPECT_FALSE(is_behind_median(trials, running({{5, 2.0}, {10, 9.0}})));  // its best so far counts
  EXPECT_TRUE(is_behind_median(trials, running({{20, 1.5}})));
}

TEST(MedianPruner, WaitsForEnoughTrialsAndForTheirReports) {
  auto trials = five_trials();
  EXPECT_FALSE(is_behind_median(trials, running({})));
  EXPECT_FALSE(is_behind_median(trials, running({{7, 100.0}})));  // nobody reported at step 7
  EXPECT_TRUE(is_behind_median(trials, running({{10, std::numeric_limits<double>::quiet_NaN()}})));
  trials[0].state = TrialState::kFail;
  EXPECT_FALSE(is_behind_median(trials, running({{10, 100.0}})));
}

TEST(ParameterImportance, GivesTheParameterThatMattersItsShare) {
  const Space space{{"idle", FloatDistribution{.low = 0.0, .high = 1.0}},
                    {"rate", FloatDistribution{.low = 1e-4, .high = 1.0, .log = true}},
                    {"single", FloatDistribution{.low = 2.0, .high = 2.0}}};
  std::vector<PastTrial> trials;
  for (int64_t number = 0; number < 20; ++number) {
    Rng rng(1, "test/" + std::to_string(number));
    PastTrial trial{.number = number, .params = sample_uniformly(space, rng)};
    trial.value = std::pow(std::log10(trial.params.at("rate")) + 2, 2);
    trials.push_back(std::move(trial));
  }
  const auto importance = parameter_importance(space, trials);
  EXPECT_EQ(importance.size(), 2u);
  EXPECT_GT(importance.at("rate"), 0.9);
  EXPECT_NEAR(importance.at("rate") + importance.at("idle"), 1.0, 1e-9);
  EXPECT_TRUE(parameter_importance(space, std::span(trials).first(3)).empty());
}

}  // namespace
}  // namespace potstill
