#include "potstill/nn/prune.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <functional>

#include "tests/nn/tiny_model.h"

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/formats/safetensors.h"
#include "potstill/nn/transformer.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

// A token for each printable ASCII character: enough to read a calibration text.
std::shared_ptr<const Tokenizer> forty_characters() {
  Vocabulary vocabulary;
  for (char c = 'A'; c < 'A' + 48; ++c) vocabulary.tokens.emplace_back(1, c);
  vocabulary.types.assign(vocabulary.tokens.size(), TokenType::kNormal);
  return std::make_shared<Tokenizer>(vocabulary);
}

class Prune : public testing::Test {
 protected:
  Prune()
      : folder_(fs::path(testing::TempDir()) / (std::string("potstill_prune_") + std::to_string(::getpid()) +
                                                testing::UnitTest::GetInstance()->current_test_info()->name())) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~Prune() override { fs::remove_all(folder_); }

  // tiny_llama with layers of its own and idle ones, whose outputs are zero: "01.0" is layers 0, 1, an idle one and 0.
  ModelPackage deepened(const std::string& pattern) {
    const ModelPackage source = tiny_model("tiny_llama");
    const fs::path path = folder_ / "deepened";
    fs::create_directories(path);
    std::vector<TensorSpec> specs;
    std::vector<std::vector<std::byte>> contents;
    const auto add = [&](const std::string& name, const std::string& from, bool zero) {
      const auto view = *source.weights->view(from);
      specs.push_back({name, view.dtype, {view.shape.begin(), view.shape.end()}});
      contents.emplace_back(view.bytes.begin(), view.bytes.end());
      if (zero) std::ranges::fill(contents.back(), std::byte{0});
    };
    add("model.embed_tokens.weight", "model.embed_tokens.weight", false);
    add("model.norm.weight", "model.norm.weight", false);
    for (size_t layer = 0; layer < pattern.size(); ++layer) {
      const bool idle = pattern[layer] == '.';
      const std::string from = std::string("model.layers.") + (idle ? '0' : pattern[layer]) + ".";
      for (const WeightInfo& weight : source.weights->weights()) {
        if (!weight.name.starts_with(from)) continue;
        const std::string rest = weight.name.substr(from.size());
        add("model.layers." + std::to_string(layer) + "." + rest, weight.name,
            idle && (rest.starts_with("self_attn.o_proj") || rest.starts_with("mlp.down_proj")));
      }
    }
    SafetensorsFolderWriter writer(path, specs);
    for (size_t i = 0; i < specs.size(); ++i) writer.append(specs[i].name, contents[i]);
    writer.finish();
    ModelPackage package = source;
    package.path = path;
    package.config.num_hidden_layers = static_cast<int64_t>(pattern.size());
    package.weights = std::make_shared<HfCheckpoint>(path);
    package.tokenizer = forty_characters();
    return package;
  }

  static std::string text(size_t length) {
    std::string result;
    for (size_t i = 0; i < length; ++i) result += static_cast<char>('A' + (i * i + i / 7) % 48);
    return result;
  }

  fs::path folder_;
};

PruneOptions fp32_of(int64_t tokens) {
  PruneOptions options;
  options.dtype = "fp32";
  options.device = "cpu";
  options.tokens = tokens;
  return options;
}

std::string complaint(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST_F(Prune, DropsTheLayersThatDoNothing) {
  const ModelPackage model = deepened("0.1.");
  std::vector<int64_t> steps;
  PruneOptions options = fp32_of(300);
  options.progress = [&](int64_t done, int64_t total) {
    EXPECT_EQ(total, 4);
    steps.push_back(done);
  };
  const PrunePlan plan = plan_by_influence(model, 2, text(500), options);
  EXPECT_THAT(plan.keep, ElementsAre(0, 2));
  EXPECT_THAT(plan.removed, testing::UnorderedElementsAre(1, 3));
  EXPECT_THAT(steps, ElementsAre(1, 2, 3, 4));
  EXPECT_EQ(plan.calibration_tokens, 300);
  ASSERT_EQ(plan.influence.size(), 4u);
  EXPECT_NEAR(plan.influence[1], 0.0, 1e-6);
  EXPECT_NEAR(plan.influence[3], 0.0, 1e-6);
  EXPECT_GT(plan.influence[0], 1e-3);
  EXPECT_GT(plan.influence[2], 1e-3);
}

TEST_F(Prune, InfluenceIsOneMinusTheMeanCosineOfTheHiddenStates) {
  const ModelPackage model = deepened("01");
  const PrunePlan plan = plan_by_influence(model, 1, text(100), fp32_of(100));
  const Transformer transformer = load_transformer(model, at::kFloat, at::kCPU);
  const at::NoGradGuard no_grad;
  const std::vector<std::vector<TokenId>> tokens = {model.tokenizer->encode(text(100))};
  const PackedBatch batch = pack_sequences(tokens);
  const RotaryTable rotary = make_rotary_table(model.config, 128, at::kCPU);
  at::Tensor hidden = transformer.embed_tokens.index_select(0, batch.token_ids);
  for (size_t layer = 0; layer < 2; ++layer) {
    const at::Tensor after = transformer.layers[layer].forward(hidden, batch, rotary, model.config);
    const double dot =
        (hidden * after / (hidden.norm(2, 1, true) * after.norm(2, 1, true))).sum(1).mean().item<double>();
    EXPECT_NEAR(plan.influence[layer], 1.0 - dot, 1e-5) << layer;
    hidden = after;
  }
}

TEST_F(Prune, AChildWithoutItsIdleLayersGivesTheSameLogits) {
  const ModelPackage model = deepened("0.1.");
  const fs::path child_path = folder_ / "child";
  fs::create_directories(child_path);
  // write_pruned also writes the tokenizer's files, which these characters do not need
  write_pruned(model, plan_by_hand(model, std::vector<int64_t>{0, 2}), "auto", child_path);
  const auto config = model_config_from_json(read_json_file(child_path / "config.json"), "child");
  EXPECT_EQ(config.num_hidden_layers, 2);
  EXPECT_EQ(config.torch_dtype, "float16");
  ModelPackage child = model;
  child.config = config;
  child.weights = std::make_shared<HfCheckpoint>(child_path);
  EXPECT_EQ(child.weights->weights().size(), model.weights->weights().size() - 2 * 9);

  const at::NoGradGuard no_grad;
  const std::vector<std::vector<TokenId>> tokens = {model.tokenizer->encode(text(40))};
  const PackedBatch batch = pack_sequences(tokens);
  const auto logits = [&](const ModelPackage& package) {
    const Transformer transformer = load_transformer(package, at::kFloat, at::kCPU);
    return transformer.logits(transformer.hidden_states(batch));
  };
  EXPECT_TRUE(logits(child).equal(logits(model)));
}

TEST_F(Prune, ByHandTakesAscendingDistinctLayersOnly) {
  const ModelPackage model = tiny_model("tiny_llama");
  EXPECT_THAT(plan_by_hand(model, std::vector<int64_t>{1}).removed, ElementsAre(0));
  for (const auto& keep : std::vector<std::vector<int64_t>>{{}, {1, 0}, {0, 0}, {-1}, {0, 2}}) {
    EXPECT_THAT(complaint([&] { plan_by_hand(model, keep); }), HasSubstr("ascending order"));
  }
}

TEST_F(Prune, RefusesWhatCannotWork) {
  const ModelPackage model = deepened("01");
  const PruneOptions options = fp32_of(100);
  EXPECT_THAT(complaint([&] { plan_by_influence(model, 2, text(100), options); }), HasSubstr("ask for 1 to 1"));
  EXPECT_THAT(complaint([&] { plan_by_influence(model, 0, text(100), options); }), HasSubstr("ask for 1 to 1"));
  EXPECT_THAT(complaint([&] { plan_by_influence(model, 1, text(8), options); }), HasSubstr("has 8 tokens"));
}

}  // namespace
}  // namespace potstill
