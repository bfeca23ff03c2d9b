#include "potstill/search/tpe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numbers>
#include <set>

#include "potstill/base/jsonl.h"

namespace potstill {
namespace {

const nlohmann::json& golden() {
  static const nlohmann::json json = read_json_file(POTSTILL_SOURCE_DIR "/tests/golden/search/parzen.json");
  return json;
}

TEST(TpeGolden, NumberOfGoodTrialsEqualsOptunas) {
  for (int64_t n = 0; n <= 300; ++n) {
    EXPECT_EQ(tpe_num_below(n), golden()["gamma"][static_cast<size_t>(n)].get<int64_t>()) << n;
  }
}

TEST(TpeGolden, GoodTrialsAreOptunas) {
  std::vector<PastTrial> trials;
  for (const auto& row : golden()["trials"]) {
    PastTrial trial{.number = static_cast<int64_t>(trials.size()),
                    .state = row["state"] == "COMPLETE" ? TrialState::kComplete : TrialState::kPruned};
    if (!row["value"].is_null()) trial.value = row["value"];
    for (const auto& [step, value] : row["reports"].items()) {
      trial.intermediate[std::stoll(step)] =
          value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
    }
    trials.push_back(std::move(trial));
  }
  for (const auto& row : golden()["splits"]) {
    const auto split = tpe_split(std::span(trials).first(row["n"].get<size_t>()), row["n_below"]);
    std::vector<int64_t> below;
    for (const auto& trial : split.below) below.push_back(trial.number);
    EXPECT_EQ(below, row["below"].get<std::vector<int64_t>>()) << row;
    EXPECT_EQ(split.below.size() + split.above.size(), row["n"].get<size_t>());
  }
}

TEST(TpeSplit, RunningTrialsStandWithTheBadOnes) {
  const std::vector<PastTrial> trials{{.number = 0, .value = 2.0},
                                      {.number = 1, .state = TrialState::kRunning},
                                      {.number = 2, .value = 1.0},
                                      {.number = 3, .state = TrialState::kFail}};
  const auto split = tpe_split(trials, 1);
  ASSERT_EQ(split.below.size(), 1u);
  EXPECT_EQ(split.below[0].number, 2);
  ASSERT_EQ(split.above.size(), 2u);
  EXPECT_EQ(split.above[1].number, 1);
}

TEST(StartPoints, HoldOnePointInEveryStratumOfEveryParameter) {
  const Space space{{"log", FloatDistribution{.low = 1e-4, .high = 1.0, .log = true}},
                    {"flat", FloatDistribution{.low = 0.0, .high = 8.0}},
                    {"choice", CategoricalDistribution{{"a", "b", "c", "d"}}}};
  const auto points = start_points(space, 8, /*seed=*/1);
  std::set<int> log_strata, flat_strata;
  std::vector<int> choices(4);
  for (const auto& point : points) {
    log_strata.insert(static_cast<int>(2.0 * (std::log10(point.at("log")) + 4.0)));
    flat_strata.insert(static_cast<int>(point.at("flat")));
    ++choices.at(static_cast<size_t>(point.at("choice")));
  }
  EXPECT_EQ(log_strata.size(), 8u);
  EXPECT_EQ(flat_strata.size(), 8u);
  EXPECT_EQ(choices, (std::vector<int>{2, 2, 2, 2}));
  EXPECT_EQ(points, start_points(space, 8, 1));
  EXPECT_NE(points, start_points(space, 8, 2));
}

// Dixon and Szegö 1978; the least value is 0.397887.
double branin(double x, double y) {
  using std::numbers::pi;
  const double a = y - 5.1 / (4 * pi * pi) * x * x + 5 / pi * x - 6;
  return a * a + 10 * (1 - 1 / (8 * pi)) * std::cos(x) + 10;
}

double rosenbrock(double x, double y) { return std::pow(1 - x, 2) + 100 * std::pow(y - x * x, 2); }

double mean_best(const PointSampler& sampler, const Space& space, const std::function<double(double, double)>& f,
                 int64_t num_trials, uint64_t seed_offset) {
  constexpr uint64_t kSeeds = 20;
  double sum = 0.0;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    std::vector<PastTrial> trials;
    double best = std::numeric_limits<double>::infinity();
    for (int64_t number = 0; number < num_trials; ++number) {
      Rng rng(seed + seed_offset, "test/" + std::to_string(number));
      PastTrial trial{.number = number, .params = sampler.sample(space, trials, number, rng)};
      trial.value = f(trial.params.at("x"), trial.params.at("y"));
      best = std::min(best, trial.value);
      trials.push_back(std::move(trial));
    }
    sum += best / kSeeds;
  }
  return sum;
}

TEST(Tpe, BeatsRandomSearchOnBraninAndRosenbrock) {
  const Space branin_space{{"x", FloatDistribution{.low = -5.0, .high = 10.0}},
                           {"y", FloatDistribution{.low = 0.0, .high = 15.0}}};
  const Space rosenbrock_space{{"x", FloatDistribution{.low = -2.0, .high = 2.0}},
                               {"y", FloatDistribution{.low = -1.0, .high = 3.0}}};
  const TpeSampler tpe({.n_startup_trials = 10});
  const RandomSampler random;
  EXPECT_LT(mean_best(tpe, branin_space, branin, 50, 0), mean_best(random, branin_space, branin, 50, 100));
  EXPECT_LT(mean_best(tpe, rosenbrock_space, rosenbrock, 50, 0),
            mean_best(random, rosenbrock_space, rosenbrock, 50, 100));
}

TEST(Tpe, LeavesSingleValuesAlone) {
  const Space space{{"fixed", FloatDistribution{.low = 2.0, .high = 2.0}},
                    {"x", FloatDistribution{.low = 0.0, .high = 1.0}}};
  std::vector<PastTrial> trials;
  for (int64_t i = 0; i < 4; ++i) {
    trials.push_back({.number = i, .params = {{"fixed", 2.0}, {"x", 0.1 * static_cast<double>(i)}}});
  }
  Rng rng(1, "test");
  EXPECT_EQ(TpeSampler({.n_startup_trials = 2}).sample(space, trials, 4, rng).at("fixed"), 2.0);
}

}  // namespace
}  // namespace potstill
