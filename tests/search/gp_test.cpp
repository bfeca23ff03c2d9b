// tests/golden/search/gp.json: Optuna's Gaussian process and SciPy's Sobol points, made by gp.py beside it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>
#include <set>

#include "potstill/base/jsonl.h"
#include "potstill/search/gaussian_process.h"
#include "potstill/search/gp_sampler.h"
#include "potstill/search/minimize_in_box.h"
#include "potstill/search/sobol.h"
#include "potstill/search/tpe.h"

namespace potstill {
namespace {

const nlohmann::json& golden() {
  static const nlohmann::json json = read_json_file(POTSTILL_SOURCE_DIR "/tests/golden/search/gp.json");
  return json;
}

GaussianProcess golden_process() {
  const auto& hyper = golden()["hyper"];
  return {golden()["x"].get<std::vector<UnitPoint>>(),
          golden()["y"].get<std::vector<double>>(),
          {false, false, true},
          {.inverse_squared_lengths = hyper["inverse_squared_lengths"].get<std::vector<double>>(),
           .scale = hyper["scale"],
           .noise = hyper["noise"]}};
}

TEST(GaussianProcessGolden, PosteriorAndItsSlopesAreOptunas) {
  const auto process = golden_process();
  for (const auto& row : golden()["posterior"]) {
    const auto point = row["point"].get<UnitPoint>();
    std::vector<double> mean_gradient(3), variance_gradient(3);
    const auto [mean, variance] = process.posterior(point, mean_gradient, variance_gradient);
    EXPECT_NEAR(mean, row["mean"], 1e-10);
    EXPECT_NEAR(variance, row["variance"], 1e-10);
    for (size_t d = 0; d < 2; ++d) {
      EXPECT_NEAR(mean_gradient[d], row["mean_gradient"][d], 1e-9) << d;
      EXPECT_NEAR(variance_gradient[d], row["variance_gradient"][d], 1e-9) << d;
    }
    EXPECT_EQ(mean_gradient[2], 0.0);  // unordered
    EXPECT_EQ(process.posterior(point).mean, mean);
  }
}

TEST(GaussianProcessGolden, LikelihoodAndItsGradientAreOptunas) {
  std::vector<double> gradient(5);
  EXPECT_NEAR(golden_process().negative_log_likelihood(gradient), golden()["nll"], 1e-9);
  for (size_t i = 0; i < 5; ++i) EXPECT_NEAR(gradient[i], golden()["nll_gradient"][i], 1e-8) << i;
}

TEST(GaussianProcess, SurvivesPointsThatAreTheSame) {
  const GaussianProcess process({{0.5}, {0.5}, {0.5}}, {1.0, 0.0, -1.0}, {false},
                                {.inverse_squared_lengths = {1.0}, .scale = 1.0, .noise = 0.0});
  EXPECT_TRUE(std::isfinite(process.posterior(UnitPoint{0.4}).mean));
}

TEST(LogExpectedImprovement, IsOptunasAndSmoothAcrossItsBranches) {
  for (size_t i = 0; i < golden()["z"].size(); ++i) {
    const double z = golden()["z"][i], expected = golden()["log_ei"][i];
    EXPECT_NEAR(log_expected_improvement(z), expected, 1e-9 * std::abs(expected) + 1e-9) << z;
    double slope = 0;
    log_expected_improvement(z, &slope);
    const double h = 1e-5 * std::max(1.0, std::abs(z));
    const double difference = (log_expected_improvement(z + h) - log_expected_improvement(z - h)) / (2 * h);
    EXPECT_NEAR(slope, difference, 1e-5 * std::abs(difference)) << z;
  }
}

TEST(SobolGolden, PointsAreSciPys) {
  const auto points = sobol_points(32, 16);
  for (size_t i = 0; i < 16; ++i) {
    for (size_t d = 0; d < 32; ++d) EXPECT_EQ(points[i][d], golden()["sobol"][i][d].get<double>()) << i << ", " << d;
  }
}

TEST(Sobol, ScramblingKeepsOnePointInEveryStratum) {
  for (uint64_t seed = 0; seed < 5; ++seed) {
    Rng rng(seed, "test");
    const auto points = scrambled_sobol_points(6, 16, rng);
    for (size_t d = 0; d < 6; ++d) {
      std::set<int> strata;
      for (const auto& point : points) strata.insert(static_cast<int>(16 * point[d]));
      EXPECT_EQ(strata.size(), 16u) << seed << ", " << d;
    }
  }
  Rng rng(1, "test");
  EXPECT_EQ(scrambled_sobol_points(40, 3, rng).front().size(), 40u);  // more coordinates than the table has
}

TEST(UnitCube, ValuesComeBackAndNumbersInOrderAreOrdered) {
  const Space space{{"choice", CategoricalDistribution{{"a", "b", "c"}}},
                    {"int", IntDistribution{.low = 2, .high = 20, .step = 3}},
                    {"log", FloatDistribution{.low = 1e-5, .high = 1e-2, .log = true}},
                    {"log_int", IntDistribution{.low = 1, .high = 64, .log = true}},
                    {"rank", CategoricalDistribution{{4, 8, 16}}}};
  Rng rng(1, "test");
  for (int i = 0; i < 100; ++i) {
    const Params params = sample_uniformly(space, rng);
    for (const auto& [name, value] : params_from_unit(space, unit_from_params(space, params))) {
      EXPECT_NEAR(value, params.at(name), 1e-12 * std::abs(value)) << name;
    }
  }
  EXPECT_TRUE(is_unordered(space.at("choice")));
  EXPECT_FALSE(is_unordered(space.at("rank")));
  EXPECT_TRUE(is_unordered(CategoricalDistribution{{4, 16, 8}}));
  EXPECT_EQ(num_values(space.at("int")), 7);
  EXPECT_EQ(num_values(space.at("log")), 0);
}

TEST(MinimizeInBox, FindsTheBottomOfAValleyAndStopsAtTheWall) {
  const SmoothFunction rosenbrock = [](std::span<const double> x, std::span<double> gradient) {
    const double a = 1 - x[0], b = x[1] - x[0] * x[0];
    gradient[0] = -2 * a - 400 * x[0] * b;
    gradient[1] = 200 * b;
    return a * a + 100 * b * b;
  };
  const std::vector<double> low{-2, -2}, high{2, 2}, tight{0.5, 2};
  const auto inside = minimize_in_box(rosenbrock, {-1.2, 1.0}, low, high, 500);
  EXPECT_NEAR(inside.x[0], 1.0, 1e-3);
  EXPECT_NEAR(inside.x[1], 1.0, 1e-3);
  const auto walled = minimize_in_box(rosenbrock, {-1.2, 1.0}, low, tight, 500);
  EXPECT_NEAR(walled.x[0], 0.5, 1e-9);
  EXPECT_NEAR(walled.x[1], 0.25, 1e-4);
}

const Space kMixed{{"kind", CategoricalDistribution{{"a", "b", "c"}}},
                   {"rank", CategoricalDistribution{{4, 8, 16, 32}}},
                   {"rate", FloatDistribution{.low = 1e-5, .high = 1e-1, .log = true}},
                   {"share", FloatDistribution{.low = 0.0, .high = 1.0}}};

double mixed(const Params& p) {
  const double rate = std::log10(p.at("rate")) + 3.0, share = p.at("share") - 0.7, rank = p.at("rank") - 2.0;
  return rate * rate + 4 * share * share + 0.3 * rank * rank + (p.at("kind") == 1.0 ? 0.0 : 0.5);
}

std::vector<PastTrial> mixed_study(const PointSampler& sampler, int64_t num_trials, uint64_t seed) {
  std::vector<PastTrial> trials;
  for (int64_t number = 0; number < num_trials; ++number) {
    Rng rng(seed, "test/" + std::to_string(number));
    PastTrial trial{.number = number, .params = sampler.sample(kMixed, trials, number, rng)};
    trial.value = mixed(trial.params);
    trials.push_back(std::move(trial));
  }
  return trials;
}

double mean_best(const PointSampler& sampler, int64_t num_trials) {
  double sum = 0;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    const auto trials = mixed_study(sampler, num_trials, seed);
    sum += std::ranges::min(trials, {}, &PastTrial::value).value / 10;
  }
  return sum;
}

TEST(GpSampler, BeatsTpeAndRandomSearchAtTwentyTrials) {
  const double gp = mean_best(GpSampler({.n_startup_trials = 4}), 20);
  EXPECT_LT(gp, 0.5 * mean_best(TpeSampler({.n_startup_trials = 4}), 20));
  EXPECT_LT(gp, 0.5 * mean_best(RandomSampler(), 20));
}

TEST(GpSampler, RunningTrialsKeepOthersAway) {
  const GpSampler sampler({.n_startup_trials = 4});
  auto trials = mixed_study(sampler, 12, 3);
  std::vector<UnitPoint> asked;
  for (int64_t worker = 0; worker < 4; ++worker) {
    Rng rng(3, "worker");  // the same draws: what differs is what the sampler knows
    const int64_t number = 12 + worker;
    const Params point = sampler.sample(kMixed, trials, number, rng);
    for (const auto& other : asked) {
      double squares = 0;
      const auto unit = unit_from_params(kMixed, point);
      for (size_t d = 0; d < unit.size(); ++d) squares += std::pow(unit[d] - other[d], 2);
      EXPECT_GT(squares, 1e-4);
    }
    asked.push_back(unit_from_params(kMixed, point));
    trials.push_back({.number = number, .state = TrialState::kRunning, .params = point});
  }
}

TEST(GpSampler, LeavesARegionWhereTrialsFail) {
  const Space space{{"rate", FloatDistribution{.low = 0.0, .high = 1.0}}};
  const GpSampler sampler({.n_startup_trials = 2});
  std::vector<PastTrial> trials;
  int failures = 0;
  for (int64_t number = 0; number < 16; ++number) {  // smaller towards 0.6, where it breaks
    Rng rng(1, "test/" + std::to_string(number));
    PastTrial trial{.number = number, .params = sampler.sample(space, trials, number, rng)};
    const double rate = trial.params.at("rate");
    trial.state = rate > 0.6 ? TrialState::kFail : TrialState::kComplete;
    trial.value = -rate;
    failures += rate > 0.6 ? 1 : 0;
    trials.push_back(std::move(trial));
  }
  EXPECT_LE(failures, 8);
  double best = 0;
  for (const auto& trial : trials) {
    if (trial.state == TrialState::kComplete) best = std::min(best, trial.value);
  }
  EXPECT_LT(best, -0.5);
}

TEST(GpSampler, TriesEveryPointOfAFiniteSpaceBeforeItRepeatsOne) {
  const Space space{{"a", CategoricalDistribution{{"x", "y", "z"}}}, {"b", IntDistribution{.low = 1, .high = 3}}};
  const GpSampler sampler({.n_startup_trials = 2});
  std::vector<PastTrial> trials;
  std::set<std::pair<double, double>> seen;
  for (int64_t number = 0; number < 12; ++number) {
    Rng rng(1, "test/" + std::to_string(number));
    PastTrial trial{.number = number, .params = sampler.sample(space, trials, number, rng)};
    trial.value = trial.params.at("a") + trial.params.at("b");
    seen.emplace(trial.params.at("a"), trial.params.at("b"));
    trials.push_back(std::move(trial));
  }
  EXPECT_EQ(seen.size(), 9u);
}

}  // namespace
}  // namespace potstill
