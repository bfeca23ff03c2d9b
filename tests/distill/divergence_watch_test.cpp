#include "potstill/distill/divergence_watch.h"

#include <gtest/gtest.h>

#include <cmath>

namespace potstill {
namespace {

TrainStep step(double loss, double kl) {
  TrainStep log;
  log.loss = loss;
  log.kl = kl;
  return log;
}

TEST(DivergenceWatch, StopsAtThreeTimesTheLowestSmoothedLoss) {
  DivergenceWatch watch(1, 1'000'000);
  for (int i = 0; i < 20; ++i) watch.add(step(1, 1));
  EXPECT_FALSE(watch.problem(step(10, 1)));  // 0.8 · 1 + 0.2 · 10 = 2.8
  EXPECT_TRUE(watch.problem(step(12, 1)));   // 3.2
  EXPECT_FALSE(watch.is_lowest(step(1.1, 1)));
  EXPECT_TRUE(watch.is_lowest(step(0.9, 1)));
}

TEST(DivergenceWatch, ALossOfNothingMayGrow) {
  DivergenceWatch watch(1, 1000);
  watch.add(step(1e-6, 1e-6));
  EXPECT_FALSE(watch.problem(step(1e-3, 1e-3)));
  EXPECT_TRUE(watch.problem(step(1, 1)));
}

TEST(DivergenceWatch, StopsAboveAGuessButNotWhereItBeganThere) {
  const double guess = std::log(100.0);
  DivergenceWatch good(1, 100), bad(1, 100);
  good.add(step(0.9 * guess, 0.9 * guess));
  EXPECT_TRUE(good.problem(step(2 * guess, 2 * guess)));  // smoothed: 1.12
  bad.add(step(2 * guess, 2 * guess));
  EXPECT_FALSE(bad.problem(step(1.9 * guess, 1.9 * guess)));
  EXPECT_TRUE(bad.problem(step(2.1 * guess, 2.1 * guess)));
}

TEST(DivergenceWatch, GoesOnFromItsState) {
  DivergenceWatch watch(0.5, 100), other(0.5, 100);
  watch.add(step(2, 1));
  watch.add(step(1, 0.5));
  other.load_state(nlohmann::json::parse(watch.state().dump()));
  EXPECT_EQ(other.state(), watch.state());
  watch.add(step(1.5, 0.7));
  other.add(step(1.5, 0.7));
  EXPECT_EQ(other.state(), watch.state());
  EXPECT_FALSE(DivergenceWatch(1, 100).problem(step(1e9, 1e9)));  // nothing came before
}

}  // namespace
}  // namespace potstill
