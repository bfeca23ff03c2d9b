#include "potstill/lm/sampling.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "potstill/base/error.h"

namespace potstill {
namespace {

const std::vector<float> kLogits{1.0f, 3.0f, 2.0f, 3.0f, -1.0f};

// How often each id comes in `draws` samples.
std::vector<double> frequencies(const SamplingParams& params, int draws, std::span<const TokenId> context = {}) {
  Sampler sampler(params);
  std::vector<double> counts(kLogits.size());
  for (int i = 0; i < draws; ++i) counts[static_cast<size_t>(sampler.sample(kLogits, context))] += 1.0 / draws;
  return counts;
}

TEST(Sampler, GreedyTakesTheLowestIdOfEquals) { EXPECT_EQ(Sampler({}).sample(kLogits, {}), 1); }

TEST(Sampler, SameSeedGivesTheSameDraws) {
  Sampler a({.temperature = 1.0, .seed = 7}), b({.temperature = 1.0, .seed = 7}), c({.temperature = 1.0, .seed = 8});
  int differs = 0;
  for (int i = 0; i < 64; ++i) {
    const TokenId id = a.sample(kLogits, {});
    EXPECT_EQ(id, b.sample(kLogits, {}));
    differs += id != c.sample(kLogits, {});
  }
  EXPECT_GT(differs, 0);
}

// 40,000 draws: the standard error of a frequency is below 0.0025; five of them are the tolerance.
TEST(Sampler, DrawsBySoftmaxOfLogitsOverTemperature) {
  for (const double temperature : {0.5, 1.0, 2.0}) {
    const auto seen = frequencies({.temperature = temperature, .seed = 3}, 40000);
    double sum = 0;
    for (const float logit : kLogits) sum += std::exp(logit / temperature);
    for (size_t i = 0; i < kLogits.size(); ++i) {
      EXPECT_NEAR(seen[i], std::exp(kLogits[i] / temperature) / sum, 0.0125) << "id " << i << " T " << temperature;
    }
  }
}

TEST(Sampler, TopKKeepsTheBestK) {
  const auto seen = frequencies({.temperature = 1.0, .top_k = 3, .seed = 1}, 2000);
  EXPECT_GT(seen[1], 0);
  EXPECT_GT(seen[2], 0);
  EXPECT_GT(seen[3], 0);
  EXPECT_EQ(seen[0] + seen[4], 0);
}

TEST(Sampler, TopPKeepsTheFewestThatReachTheMass) {
  // p = 0.05 0.40 0.15 0.40 0.007: two ids reach 0.75, three are needed for 0.85.
  const auto two = frequencies({.temperature = 1.0, .top_p = 0.75, .seed = 1}, 2000);
  EXPECT_EQ(two[0] + two[2] + two[4], 0);
  const auto three = frequencies({.temperature = 1.0, .top_p = 0.85, .seed = 1}, 2000);
  EXPECT_GT(three[2], 0);
  EXPECT_EQ(three[0] + three[4], 0);
  const auto one = frequencies({.temperature = 1.0, .top_p = 0.0, .seed = 1}, 100);
  EXPECT_NEAR(one[1], 1.0, 1e-9) << "the best one always stays";
}

TEST(Sampler, MinPIsRelativeToTheBest) {
  const auto seen = frequencies({.temperature = 1.0, .min_p = 0.2, .seed = 1}, 2000);  // keeps logits >= 3 - 1.61
  EXPECT_GT(seen[2], 0);
  EXPECT_EQ(seen[0] + seen[4], 0);
}

TEST(Sampler, RepetitionPenaltyCountsAnIdOnceAndMovesBothSigns) {
  const std::array<TokenId, 4> context{1, 1, 3, 4};
  EXPECT_EQ(Sampler({.repetition_penalty = 2.0}).sample(kLogits, context), 2);  // 3 / 2 < 2; once, not 3 / 4
  EXPECT_EQ(Sampler({.repetition_penalty = 1.4}).sample(kLogits, context), 1);
  const std::vector<float> negative{-1.0f, -1.5f};
  const std::array<TokenId, 1> first{0};
  EXPECT_EQ(Sampler({.repetition_penalty = 2.0}).sample(negative, first), 1);
}

TEST(Sampler, LogitBiasIsAddedAndMinusAHundredForbids) {
  EXPECT_EQ(Sampler({.logit_bias = {{4, 100.0f}}}).sample(kLogits, {}), 4);
  EXPECT_EQ(Sampler({.logit_bias = {{1, -100.0f}, {3, -100.0f}, {99, 5.0f}}}).sample(kLogits, {}), 2);
}

TEST(Sampler, PresenceCountsOnceFrequencyEachTimeAndOnlyInTheAnswer) {
  const std::array<TokenId, 5> context{1, 1, 3, 3, 1};  // the first two are the prompt's
  EXPECT_EQ(Sampler({.presence_penalty = 0.5}).sample(kLogits, context, 2), 1) << "both are penalized once";
  EXPECT_EQ(Sampler({.frequency_penalty = 0.6}).sample(kLogits, context, 2), 1) << "3 stands twice: 1.8; 1 once: 2.4";
  EXPECT_EQ(Sampler({.presence_penalty = 1.5}).sample(kLogits, context, 2), 2);
  EXPECT_EQ(Sampler({.presence_penalty = 2.0}).sample(kLogits, context, 5), 1) << "nothing of the answer is there yet";
}

TEST(Sampler, RefusesWhatItCannotDraw) {
  const std::vector<float> broken(3, std::numeric_limits<float>::quiet_NaN());
  EXPECT_THROW(Sampler({}).sample(broken, {}), Error);
  EXPECT_THROW(Sampler({.temperature = -1}), Error);
  EXPECT_THROW(Sampler({.temperature = 1, .top_p = 1.5}), Error);
}

TEST(LogSumExp, IsTheLogOfTheSum) {
  EXPECT_NEAR(log_sum_exp(kLogits), std::log(std::exp(1.0) + 2 * std::exp(3.0) + std::exp(2.0) + std::exp(-1.0)), 1e-7);
  EXPECT_NEAR(log_sum_exp(std::vector<float>{1000.0f, 1000.0f}), 1000.0 + std::log(2.0), 1e-9);
}

}  // namespace
}  // namespace potstill
