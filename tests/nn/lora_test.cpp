#include "potstill/nn/lora.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "tests/nn/tiny_model.h"

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"
#include "potstill/base/rng.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

class LoraTest : public ::testing::Test {
 protected:
  LoraTest() : folder_(fs::temp_directory_path() / ("potstill_lora_" + std::to_string(::getpid()))) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~LoraTest() override { fs::remove_all(folder_); }

  Transformer model() const { return load_transformer(package_, at::kFloat, at::kCPU); }
  static at::Tensor logits(const Transformer& model) {
    const at::NoGradGuard no_grad;
    const std::vector<std::vector<int32_t>> text = {{3, 1, 4, 1, 5, 9, 2, 6}};
    return model.logits(model.hidden_states(pack_sequences(text)));
  }
  // Factors as training leaves them: B no longer zero.
  static void train(const LoraAdapter& adapter) {
    const at::NoGradGuard no_grad;
    Rng rng(5, "test");
    for (const auto& parameter : lora_parameters(adapter)) {
      for (int64_t i = 0; i < parameter.numel(); ++i) {
        parameter.data_ptr<float>()[i] += static_cast<float>(0.05 * rng.normal());
      }
    }
  }

  ModelPackage package_ = tiny_model("tiny_llama");
  fs::path folder_;
};

TEST_F(LoraTest, FreshFactorsChangeNothingAndAreDrawnAsPeftDraws) {
  auto student = model();
  const auto before = logits(student);
  const auto adapter = attach_lora(student, {.r = 4}, 7);
  EXPECT_TRUE(logits(student).equal(before));
  EXPECT_EQ(adapter.entries.size(), 7u * static_cast<size_t>(package_.config.num_hidden_layers));
  for (const auto& [path, pair] : adapter.entries) {
    EXPECT_EQ(pair->b.abs().max().item<float>(), 0.f) << path;
    const double bound = 1 / std::sqrt(static_cast<double>(pair->a.size(1)));  // kaiming_uniform(a = sqrt(5))
    EXPECT_LE(pair->a.detach().abs().max().item<double>(), bound) << path;
    EXPECT_NEAR(pair->a.detach().square().mean().item<double>(), bound * bound / 3, 0.35 * bound * bound / 3) << path;
    EXPECT_TRUE(pair->a.requires_grad() && pair->b.requires_grad());
  }
  detach_lora(student);
  EXPECT_FALSE(student.layers[0].q_proj.lora);
}

TEST_F(LoraTest, RankStabilisedScaleDividesByTheRoot) {
  EXPECT_DOUBLE_EQ((LoraConfig{.r = 16, .lora_alpha = 32}.scale()), 2.0);
  EXPECT_DOUBLE_EQ((LoraConfig{.r = 16, .lora_alpha = 32, .use_rslora = true}.scale()), 8.0);
}

TEST_F(LoraTest, SavedFactorsComeBackWithTheSameLogits) {
  for (const bool rslora : {false, true}) {
    auto student = model();
    const auto adapter = attach_lora(
        student, {.r = 4, .lora_alpha = 8, .use_rslora = rslora, .target_modules = {"v_proj", "q_proj"}}, 7);
    EXPECT_EQ(adapter.entries.size(), 2u * static_cast<size_t>(package_.config.num_hidden_layers));
    train(adapter);
    save_adapter(adapter, "base", folder_);
    auto other = model();
    const auto loaded = load_adapter(other, folder_);
    EXPECT_EQ(loaded.entries.size(), adapter.entries.size());
    EXPECT_EQ(loaded.config.use_rslora, rslora);
    EXPECT_TRUE(logits(other).equal(logits(student)));
    EXPECT_FALSE(logits(other).equal(logits(model())));
  }
}

TEST_F(LoraTest, NamesThatAreNoLinearsAreRefusedWithTheNearest) {
  auto student = model();
  try {
    attach_lora(student, {.target_modules = {"q_porj"}}, 7);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("q_proj"), std::string::npos) << error.what();
  }
  EXPECT_THROW(attach_lora(student, {.target_modules = {}}, 7), Error);
}

TEST_F(LoraTest, MissingFactorsAndOtherModelsAreErrors) {
  auto student = model();
  save_adapter(attach_lora(student, {.r = 4, .target_modules = {"q_proj"}}, 7), "base", folder_);
  auto config = read_json_file(folder_ / "adapter_config.json");
  config["target_modules"] = {"q_proj", "v_proj"};  // says more than the file holds
  write_file_atomically(folder_ / "adapter_config.json", config.dump());
  auto other = model();
  EXPECT_THROW(load_adapter(other, folder_), Error);

  config["target_modules"] = {"k_proj"};  // the file holds what is not targeted
  write_file_atomically(folder_ / "adapter_config.json", config.dump());
  EXPECT_THROW(load_adapter(other, folder_), Error);

  config["target_modules"] = {"q_proj"};
  write_file_atomically(folder_ / "adapter_config.json", config.dump());
  auto shallow = model();
  shallow.layers.pop_back();
  EXPECT_THROW(load_adapter(shallow, folder_), Error);  // factors of a layer that is not there
}

}  // namespace
}  // namespace potstill
