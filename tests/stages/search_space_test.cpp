#include "potstill/stages/search_space.h"

#include <gtest/gtest.h>

#include "potstill/base/error.h"

namespace potstill {
namespace {

TEST(TrainingSpace, HoldsEveryRangeOfTheConfig) {
  const Space space = training_space({}, {});
  EXPECT_EQ(space.size(), 7u);
  EXPECT_TRUE(numeric_range(space.at("lr"))->log);
  EXPECT_DOUBLE_EQ(numeric_range(space.at("lr"))->low, DistillConfig{}.peak_lr() / 5);
  EXPECT_TRUE(numeric_range(space.at("temperature"))->log);
}

TEST(TrainingSpace, OneNumberFixesAndAnEmptyListLeavesOut) {
  SearchConfig config;
  config.alpha = {0.5};
  config.temperature = {};
  config.rank = {16};
  const Space space = training_space(config, {});
  EXPECT_TRUE(is_single(space.at("alpha")));
  EXPECT_FALSE(space.contains("temperature"));
  EXPECT_TRUE(is_single(space.at("rank")));
}

TEST(TrainingSpace, RefusesRangesThatCannotBe) {
  SearchConfig upside_down;
  upside_down.alpha = {1.0, 0.0};
  EXPECT_THROW(training_space(upside_down, {}), Error);
  SearchConfig three;
  three.lr = {1e-4, 1e-3, 1e-2};
  EXPECT_THROW(training_space(three, {}), Error);
  SearchConfig twice;
  twice.rank = {8, 8};
  EXPECT_THROW(training_space(twice, {}), Error);
}

TEST(TrainingSpace, PointsBecomeSettings) {
  DistillConfig train;
  train.lora_dropout = 0.05;
  const auto settings = settings_at({{"alpha", 0.25}, {"rank", 8}, {"lora_alpha_ratio", 4.0}, {"lr", 0.003}}, train);
  EXPECT_EQ(settings.alpha, 0.25);
  EXPECT_EQ(settings.rank, 8);
  EXPECT_EQ(settings.lora_alpha, 32.0);
  EXPECT_EQ(settings.lr, 0.003);
  EXPECT_EQ(settings.lora_dropout, 0.05);  // not in the point
  // Without a ratio, [train]'s own is kept: 32 / 16.
  EXPECT_EQ(settings_at({{"rank", 4}}, train).lora_alpha, 8.0);
}

TEST(TrainingSpace, TheFirstPointIsTrainsOwnWhereItLiesInTheRanges) {
  SearchConfig config;
  config.temperature = {3.0, 8.0};  // [train]'s 2 lies outside
  const DistillConfig train;
  const Space space = training_space(config, train);
  const auto point = known_point(space, train);
  EXPECT_FALSE(point.contains("temperature"));
  EXPECT_EQ(point["rank"], 16);
  EXPECT_EQ(point["lora_alpha_ratio"], 2.0);
  EXPECT_DOUBLE_EQ(point["lr"], train.peak_lr());
  EXPECT_EQ(settings_at(point, train).lora_alpha, train.lora_alpha);
}

TEST(TrainingSpace, HoldsTheOptimizersOwnKnobsWhenAsked) {
  SearchConfig config;
  config.momentum = {0.9, 0.98};
  config.weight_decay = {0.0, 0.1};
  const DistillConfig train;  // muon
  const Space space = training_space(config, train);
  EXPECT_EQ(space.size(), 9u);
  const auto settings = settings_at({{"momentum", 0.93}, {"weight_decay", 0.05}}, train);
  EXPECT_EQ(settings.momentum, 0.93);
  EXPECT_EQ(settings.weight_decay, 0.05);
  EXPECT_EQ(searched_settings(settings, space).at("momentum"), 0.93);
  EXPECT_FALSE(searched_settings(settings).contains("momentum"));
  EXPECT_EQ(known_point(space, train).at("momentum"), train.momentum);
  SearchConfig of_adamw;
  of_adamw.beta2 = {0.9, 0.999};
  EXPECT_THROW(training_space(of_adamw, train), Error);  // Muon has no beta2
}

TEST(TrainingSpace, BestSettingsComeBackFromTheFile) {
  DistillConfig found;
  found.alpha = 0.75;
  found.rank = 32;
  found.lora_alpha = 64;
  found.lr = 0.004;
  const nlohmann::json best = {{"train", nlohmann::json(searched_settings(found))}};
  const auto settings = with_settings(best, {});
  EXPECT_EQ(searched_settings(settings), searched_settings(found));
  EXPECT_THROW(with_settings(nlohmann::json::object(), {}), Error);
  EXPECT_THROW(with_settings({{"train", {{"alpha", 7.0}}}}, {}), Error);
}

}  // namespace
}  // namespace potstill
