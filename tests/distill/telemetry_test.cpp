// What a run tells of itself: norms, arithmetic, memory; and layers computed twice instead of kept.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "tests/distill/tiny_models.h"

#include "potstill/distill/delta_norms.h"
#include "potstill/distill/train.h"
#include "potstill/distill/train_cost.h"

namespace potstill {
namespace {

const bool kOneThread = (at::set_num_threads(1), true);

TEST(DeltaNorms, AreTheLargestSingularValues) {
  at::manual_seed(2);
  const auto x = at::randn({3, 20, 12});
  const auto exact = std::get<1>(at::linalg_svd(x)).select(1, 0);
  EXPECT_TRUE(spectral_norms(x, 60).allclose(exact, 1e-3));
  EXPECT_TRUE((spectral_norms(x) <= exact * 1.00001).all().item<bool>());

  Transformer student = tiny::random(tiny::config(2), 1);
  const LoraAdapter adapter = attach_lora(student, {.r = 3, .lora_alpha = 6}, 4);
  const DeltaNorms norms(adapter, student);
  EXPECT_EQ(norms.largest_ratio(), 0);  // B = 0
  const at::NoGradGuard no_grad;
  double largest = 0;
  for (size_t layer = 0, entry = 0; layer < student.layers.size(); ++layer) {
    for (const char* name : kLinearNames) {
      const auto& linear = student.layers[layer].linear(name);
      linear.lora->b.copy_(at::randn_like(linear.lora->b));
      const auto norm = [](const at::Tensor& m) { return std::get<1>(at::linalg_svd(m))[0].item<double>(); };
      largest =
          std::max(largest, linear.lora->scale * norm(at::mm(linear.lora->b, linear.lora->a)) / norm(linear.weight));
      EXPECT_EQ(adapter.entries[entry++].pair, linear.lora);
    }
  }
  EXPECT_NEAR(norms.largest_ratio(), largest, 0.1 * largest);  // the weight's norm is from below
  EXPECT_GE(norms.largest_ratio(), 0.999 * largest);
}

TEST(TrainLora, GivesTheSameBytesWhenLayersAreComputedAgain) {
  const Transformer student = tiny::random(tiny::config(3), 1), teacher_model = tiny::random(tiny::config(2), 2);
  const DistillData data = tiny::random_data(16, 40, 5);
  const tiny::ModelSignal teacher(teacher_model, data);
  DistillConfig config;
  config.rank = 4;
  config.batch_size = 4;
  config.lora_dropout = 0.2;
  for (const std::vector<std::string>& targets :
       {std::vector<std::string>{"all-linear"}, std::vector<std::string>{"o_proj"}}) {
    config.target_modules = targets;
    config.checkpoint_activations = "off";
    const auto kept = train_lora(student, teacher, data, config, 7);
    config.checkpoint_activations = "on";
    const auto again = train_lora(student, teacher, data, config, 7);
    const auto a = lora_parameters(kept.adapter), b = lora_parameters(again.adapter);
    for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(a[i].equal(b[i])) << i;
  }
}

TEST(TrainLora, LogsWhatAStepDid) {
  const Transformer student = tiny::random(tiny::config(2), 1), teacher_model = tiny::random(tiny::config(2), 2);
  const DistillData data = tiny::random_data(16, 40, 5);
  const tiny::ModelSignal teacher(teacher_model, data);
  DistillConfig config;
  config.rank = 4;
  config.batch_size = 4;
  std::vector<TrainStep> steps;
  std::vector<MemoryRow> rows;
  TrainHooks hooks;
  hooks.measure_deltas = true;
  hooks.on_step = [&](const TrainStep& step) { steps.push_back(step); };
  hooks.on_plan = [&](const std::vector<MemoryRow>& planned, bool) { rows = planned; };
  train_lora(student, teacher, data, config, 7, hooks);
  EXPECT_GT(total_bytes(rows), 0u);
  double last = 0;
  for (const auto& step : steps) {
    const auto json = to_json(step);
    ASSERT_TRUE(step.orthogonality_error.has_value());
    EXPECT_GT(*step.orthogonality_error, 0.0);  // the quintic ends near one, not at it
    EXPECT_LT(*step.orthogonality_error, 1.0);
    EXPECT_GT(json["delta_norm_ratio"].get<double>(), last * 0.5);
    EXPECT_GT(json["flop_share"].get<double>(), 0);
    EXPECT_LT(json["flop_share"].get<double>(), 1);
    EXPECT_EQ(step_from_json(json).loss, step.loss);
    EXPECT_EQ(to_json(step_from_json(json)), json);
    last = json["delta_norm_ratio"].get<double>();
  }
  EXPECT_GT(last, 0);
  config.optimizer = "adamw";
  steps.clear();
  train_lora(student, teacher, data, config, 7, hooks);
  EXPECT_FALSE(to_json(steps.back()).contains("orthogonality_error"));
}

TEST(TrainCost, ChecksOnlyWhereMemoryAsksForIt) {
  DistillConfig config;
  const std::vector<MemoryRow> rows = {{"resident", 1000}, {"activations", 600}};
  EXPECT_FALSE(choose_checkpointing(config, rows, 1000, 1300));
  EXPECT_TRUE(choose_checkpointing(config, rows, 1000, 1100));
  config.checkpoint_activations = "on";
  EXPECT_TRUE(choose_checkpointing(config, rows, 1000, 1 << 30));
  config.checkpoint_activations = "off";
  EXPECT_FALSE(choose_checkpointing(config, rows, 1000, 0));
}

}  // namespace
}  // namespace potstill
