// tests/golden/distill/peft_loop.json: transformers and PEFT, made by peft_loop.py beside it.
#include "potstill/distill/train.h"

#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/distill/tiny_models.h"

#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"
#include "potstill/formats/safetensors.h"
#include "potstill/nn/tensor_bridge.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

// Threads only stand in each other's way on matrices of 16.
const bool kOneThread = (at::set_num_threads(1), true);

DistillConfig small_config() {
  DistillConfig config;
  config.rank = 4;
  config.lora_alpha = 8;
  config.batch_size = 4;
  config.epochs = 4;
  config.loss_rows = 7;
  config.tokens_per_batch = 40;
  return config;
}

std::vector<at::Tensor> factors_of(const TrainResult& result) { return lora_parameters(result.adapter); }

double max_difference(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, (a[i] - b[i]).abs().max().item<double>());
  return largest;
}

bool same_bytes(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const at::Tensor& x, const at::Tensor& y) { return x.equal(y); });
}

struct Tiny {
  Transformer student = tiny::random(tiny::config(2), 1);
  Transformer teacher_model = tiny::random(tiny::config(2), 1);  // the same, but for a nudge of one layer
  DistillData data = tiny::random_data(24, 40, 5);
  Tiny() {
    Rng rng(2, "nudge");
    auto& weight = teacher_model.layers[1].down_proj.weight;
    for (int64_t i = 0; i < weight.numel(); ++i) weight.data_ptr<float>()[i] += static_cast<float>(0.5 * rng.normal());
  }
  tiny::ModelSignal signal() const { return tiny::ModelSignal(teacher_model, data); }
};

TEST(TrainLora, BringsTheStudentCloserToTheTeacher) {
  Tiny tiny;
  tiny.data = tiny::random_data(48, 40, 5, /*held_out=*/0);
  const auto teacher = tiny.signal();
  const auto before = measure_agreement(tiny.student, teacher, tiny.data, tiny.data.train);
  for (const std::string optimizer : {"muon", "adamw"}) {
    auto config = small_config();
    config.optimizer = optimizer;
    config.lr = optimizer == "muon" ? 0.01 : 5e-3;
    config.epochs = 6;
    const TrainResult result = train_lora(tiny.student, teacher, tiny.data, config, 7);
    // Random tokens teach nothing about other random tokens: what shows is the fit to the training pairs.
    const auto after = measure_agreement(result.student, teacher, tiny.data, tiny.data.train);
    EXPECT_LT(after.kl, 0.5 * before.kl) << optimizer;
    EXPECT_GT(after.top1, before.top1) << optimizer;
    EXPECT_EQ(result.steps, num_train_steps(config, 48));
    EXPECT_GT(result.tokens_per_s, 0);
  }
  // The shared student itself is as it was: no factors, the same weights.
  EXPECT_EQ(measure_agreement(tiny.student, teacher, tiny.data, tiny.data.train).kl, before.kl);
}

TEST(TrainLora, GivesTheSameResultHoweverAStepIsCut) {
  const Tiny tiny;
  const auto teacher = tiny.signal();
  auto config = small_config();
  config.optimizer = "adamw";
  config.alpha = 0.6;
  const auto whole = train_lora(tiny.student, teacher, tiny.data, config, 7);
  config.tokens_per_batch = 1;  // one pair at a time
  config.loss_rows = 1;
  const auto cut = train_lora(tiny.student, teacher, tiny.data, config, 7);
  // AdamW divides by the gradient's own size, so rounding of small gradients is what separates them.
  EXPECT_LT(max_difference(factors_of(whole), factors_of(cut)), 2e-4);
  EXPECT_NEAR(whole.final_loss, cut.final_loss, 1e-4 * whole.final_loss);
}

TEST(TrainLora, ComputesABeginningThatPairsShareOnceAndWithTheSameResult) {
  Tiny tiny;
  for (auto& record : tiny.data.records) {  // a template's words before each, as long again as the pairs
    const std::vector<TokenId> words = {3, 1, 4, 1, 5, 9, 2, 6, 5};
    record.tokens.insert(record.tokens.begin(), words.begin(), words.end());
    record.is_answer.insert(record.is_answer.begin(), words.size(), 0);
  }
  const auto teacher = tiny.signal();
  auto config = small_config();
  config.optimizer = "adamw";
  config.tokens_per_batch = 1000;
  std::vector<TrainStep> steps;
  TrainHooks hooks;
  hooks.on_step = [&](const TrainStep& step) { steps.push_back(step); };
  const auto shared = train_lora(tiny.student, teacher, tiny.data, config, 7, hooks);
  EXPECT_EQ(steps[0].tokens - steps[0].rows, 3 * 9);  // four pairs a step
  config.tokens_per_batch = 1;                        // one pair at a time shares nothing
  const auto alone = train_lora(tiny.student, teacher, tiny.data, config, 7, hooks);
  EXPECT_EQ(steps.back().tokens, steps.back().rows);
  const size_t half = steps.size() / 2;
  for (size_t i = 0; i < half; ++i) EXPECT_NEAR(steps[i].loss, steps[half + i].loss, 1e-4 * steps[i].loss) << i;
  EXPECT_LT(max_difference(factors_of(shared), factors_of(alone)), 2e-4);
}

TEST(TrainLora, RepeatsToTheBitAndListensToTheSeed) {
  const Tiny tiny;
  const auto teacher = tiny.signal();
  auto config = small_config();
  config.lora_dropout = 0.1;
  const auto one = train_lora(tiny.student, teacher, tiny.data, config, 7);
  const auto two = train_lora(tiny.student, teacher, tiny.data, config, 7);
  const auto other = train_lora(tiny.student, teacher, tiny.data, config, 8);
  EXPECT_TRUE(same_bytes(factors_of(one), factors_of(two)));
  EXPECT_FALSE(same_bytes(factors_of(one), factors_of(other)));
}

struct Killed {};

TEST(TrainLora, GoesOnAfterAKillToTheSameBytes) {
  const Tiny tiny;
  const auto teacher = tiny.signal();
  // The kill lies behind the switch of the last one: its second optimizer's state is in the checkpoint.
  for (const std::string optimizer : {"muon", "adamw", "lora-muon", "adamw:0.25,muon:0.75"}) {
    auto config = small_config();
    config.optimizer = optimizer;
    config.lora_dropout = 0.1;
    config.checkpoint_every = 3;
    config.eval_every = 4;
    const auto undisturbed = train_lora(tiny.student, teacher, tiny.data, config, 7);

    const fs::path folder = fs::path(testing::TempDir()) / ("train_resume_" + optimizer);
    fs::remove_all(folder);
    TrainHooks kill;
    kill.on_step = [](const TrainStep& step) {
      if (step.step == 8) throw Killed();
    };
    EXPECT_THROW(train_lora(tiny.student, teacher, tiny.data, config, 7, kill, folder), Killed);
    std::vector<int64_t> heard;
    TrainHooks listen;
    listen.on_step = [&](const TrainStep& step) { heard.push_back(step.step); };
    const auto resumed = train_lora(tiny.student, teacher, tiny.data, config, 7, listen, folder);
    EXPECT_TRUE(same_bytes(factors_of(undisturbed), factors_of(resumed))) << optimizer;
    EXPECT_EQ(undisturbed.held_out.kl, resumed.held_out.kl);
    EXPECT_EQ(undisturbed.final_loss, resumed.final_loss);
    ASSERT_EQ(static_cast<int64_t>(heard.size()), undisturbed.steps);  // each step once, in order
    for (size_t i = 0; i < heard.size(); ++i) EXPECT_EQ(heard[i], static_cast<int64_t>(i) + 1);

    // Another seed is other work: the checkpoint is left aside.
    const auto other = train_lora(tiny.student, teacher, tiny.data, config, 9, {}, folder);
    EXPECT_FALSE(same_bytes(factors_of(other), factors_of(undisturbed)));
  }
}

TEST(TrainLora, StopsWhereTheReportCallbackSaysSo) {
  const Tiny tiny;
  const auto teacher = tiny.signal();
  auto config = small_config();
  config.eval_every = 2;
  TrainHooks hooks;
  hooks.on_eval = [](int64_t step, const Agreement& held_out) {
    EXPECT_GT(held_out.tokens, 0);
    return step < 4;
  };
  const auto result = train_lora(tiny.student, teacher, tiny.data, config, 7, hooks);
  EXPECT_EQ(result.steps, 4);
  EXPECT_TRUE(result.stopped_early);
}

class NanSignal : public tiny::ModelSignal {
 public:
  using tiny::ModelSignal::ModelSignal;
  at::Tensor logits(const at::Tensor& positions, at::Device device) const override {
    return tiny::ModelSignal::logits(positions, device).fill_(std::numeric_limits<double>::quiet_NaN());
  }
};

TEST(TrainLora, StopsAtALossThatIsNotFiniteAndNamesTheStep) {
  const Tiny tiny;
  const NanSignal teacher(tiny.teacher_model, tiny.data);
  try {
    train_lora(tiny.student, teacher, tiny.data, small_config(), 7);
    FAIL() << "NaN went through";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kNumeric);
    EXPECT_THAT(error.what(), testing::HasSubstr("step 1 of"));
    EXPECT_THAT(error.what(), testing::HasSubstr("pairs of lines"));
  }
}

TEST(TrainLora, StopsWhenItDiverges) {
  const Tiny tiny;
  const auto teacher = tiny.signal();
  auto config = small_config();
  config.lr = 100;
  config.epochs = 40;
  config.on_divergence = "stop";
  EXPECT_THROW(train_lora(tiny.student, teacher, tiny.data, config, 7), Error);
}

TEST(TrainLora, TakesTheRoundingOfAStudentThatIsItsOwnTeacherForNoDivergence) {
  Tiny tiny;
  const tiny::ModelSignal teacher(tiny.student, tiny.data);
  auto config = small_config();
  config.lr = 1e-6;
  config.on_divergence = "stop";
  const auto result = train_lora(tiny.student, teacher, tiny.data, config, 7);
  EXPECT_NEAR(result.final_loss, 0, 1e-5);
}

TEST(TrainLora, GoesBackToItsBestStepAtATenthOfTheRateWhenItDiverges) {
  const Tiny tiny;
  const auto teacher = tiny.signal();
  auto config = small_config();
  config.optimizer = "adamw";
  config.lr = 1.0;
  config.warmup_ratio = 0;
  config.epochs = 20;
  std::vector<TrainStep> told;
  TrainHooks hooks;
  hooks.on_step = [&](const TrainStep& step) { told.push_back(step); };
  const auto result = train_lora(tiny.student, teacher, tiny.data, config, 7, hooks);
  EXPECT_GE(result.retries, 1);
  EXPECT_EQ(result.steps, num_train_steps(config, static_cast<int64_t>(tiny.data.train.size())));
  EXPECT_LT(told.back().loss, told.front().loss);
  EXPECT_GT(static_cast<int64_t>(told.size()), result.steps);  // the steps that were taken back were told as well
}

TEST(TrainLora, SwitchesItsOptimizerInMidRun) {
  const Tiny tiny;
  const auto teacher = tiny.signal();
  auto config = small_config();
  config.warmup_ratio = 0;
  config.min_lr_ratio = 1;
  const auto rates = [&](const std::string& optimizer) {
    config.optimizer = optimizer;
    std::vector<double> all;
    TrainHooks hooks;
    hooks.on_step = [&](const TrainStep& step) { all.push_back(step.lr); };
    train_lora(tiny.student, teacher, tiny.data, config, 7, hooks);
    return all;
  };
  const auto both = rates("adamw:0.5,muon:0.5");
  ASSERT_GE(both.size(), 4u);
  EXPECT_EQ(both.front(), rates("adamw").front());  // each at its own default rate
  EXPECT_EQ(both.back(), rates("muon").back());
  EXPECT_NE(both.front(), both.back());
  for (const std::string bad : {"adamw:0.5,muon:0.4", "sgd", "adamw:x", "adamw:0.5,", ""}) {
    EXPECT_THROW(optimizer_phases(bad), Error) << bad;
  }
}

TEST(TrainLora, RefusesATeacherOfOtherData) {
  const Tiny tiny;
  const tiny::ModelSignal teacher(tiny.teacher_model, tiny::random_data(7, 40, 6));
  EXPECT_THROW(train_lora(tiny.student, teacher, tiny.data, small_config(), 7), Error);
}

// ---- against transformers + PEFT

const std::string kGolden = POTSTILL_SOURCE_DIR "/tests/golden/distill/";

Transformer golden_model(const std::string& file_name, int64_t layers) {
  const SafetensorsFile file(kGolden + file_name);
  return tiny::build(tiny::config(layers), [&](const std::string& name, const std::vector<int64_t>& shape) {
    const auto tensor = tensor_from_view(file.require(name)).clone();
    EXPECT_EQ(tensor.sizes().vec(), shape) << name;
    return tensor;
  });
}

TEST(TrainLora, FollowsThePeftLoopStepByStep) {
  const auto golden = read_json_file(kGolden + "peft_loop.json");
  const Transformer student = golden_model("peft_loop_student.safetensors", 2);
  const Transformer teacher_model = golden_model("peft_loop_teacher.safetensors", 3);
  DistillData data;
  for (const auto& record : golden["records"]) {
    data.train.push_back(static_cast<int64_t>(data.records.size()));
    data.records.push_back({.tokens = record["tokens"].get<std::vector<TokenId>>(),
                            .is_answer = record["is_answer"].get<std::vector<uint8_t>>(),
                            .line = 0});
  }
  DistillConfig config;
  config.alpha = golden["alpha"];
  config.temperature = golden["temperature"];
  config.rank = golden["rank"];
  config.lora_alpha = golden["lora_alpha"];
  config.optimizer = "adamw";
  config.lr = golden["lr"];
  config.weight_decay = 0.01;
  config.warmup_ratio = 0;
  config.min_lr_ratio = 1;  // a constant rate
  config.batch_size = 5;    // every pair in every step
  config.epochs = 5;
  config.tokens_per_batch = 30;

  std::vector<TrainStep> steps;
  TrainHooks hooks;
  hooks.on_step = [&](const TrainStep& step) { steps.push_back(step); };
  hooks.on_start = [&](LoraAdapter& adapter) {
    Transformer reader = student;
    const LoraAdapter initial = load_adapter(reader, kGolden + "peft_loop_adapter");
    const at::NoGradGuard no_grad;
    ASSERT_EQ(initial.entries.size(), adapter.entries.size());
    for (size_t i = 0; i < adapter.entries.size(); ++i) {
      ASSERT_EQ(initial.entries[i].path, adapter.entries[i].path);
      adapter.entries[i].pair->a.copy_(initial.entries[i].pair->a);
      adapter.entries[i].pair->b.copy_(initial.entries[i].pair->b);
    }
  };
  const auto result = train_lora(student, tiny::ModelSignal(teacher_model, data), data, config, 1, hooks);

  ASSERT_EQ(steps.size(), golden["steps"].size());
  for (size_t i = 0; i < steps.size(); ++i) {
    const auto& expected = golden["steps"][i];
    EXPECT_NEAR(steps[i].loss, expected["loss"], 1e-4 * expected["loss"].get<double>()) << "step " << i;
    EXPECT_NEAR(steps[i].kl, expected["kl"], 1e-4 * expected["kl"].get<double>()) << "step " << i;
    EXPECT_NEAR(steps[i].ce, expected["ce"], 1e-4 * expected["ce"].get<double>()) << "step " << i;
    EXPECT_NEAR(steps[i].grad_norm, expected["grad_norm"], 1e-3 * expected["grad_norm"].get<double>()) << "step " << i;
  }
  // AdamW's first steps are ±lr whatever the gradient's size; entries whose gradient is rounding noise may differ.
  const SafetensorsFile trained(kGolden + "peft_loop_trained.safetensors");
  double squares = 0, norm = 0;
  for (const auto& [path, pair] : result.adapter.entries) {
    const auto expected = tensor_from_view(trained.require("base_model.model." + path + ".lora_B.weight"));
    squares += (pair->b - expected).square().sum().item<double>();
    norm += expected.square().sum().item<double>();
  }
  EXPECT_LT(std::sqrt(squares / norm), 1e-3);
}

}  // namespace
}  // namespace potstill
