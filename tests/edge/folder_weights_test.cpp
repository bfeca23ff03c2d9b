// Hugging Face folders on the edge runtime: every family's logits against transformers (tests/golden/nn/make_golden.py;
// the LibTorch decoder is held to the same numbers), and 4-bit folders against the values that they stand for.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"
#include "potstill/base/rng.h"
#include "potstill/edge/forward.h"
#include "potstill/formats/compressed_tensors.h"
#include "potstill/formats/hf_checkpoint.h"

namespace potstill::edge {
namespace {

const std::filesystem::path kGolden = std::filesystem::path(POTSTILL_SOURCE_DIR) / "tests/golden/nn";

std::vector<std::vector<float>> logits_of(const WeightSource& source, const ModelConfig& config,
                                          const std::vector<TokenId>& tokens, bool as_prompt) {
  const EdgeWeights weights = bind_folder(source, config);
  ThreadPool pool(2);
  Forward forward(weights, pool, ActivationMode::kExact);
  KvCache cache(config, static_cast<int64_t>(tokens.size()));
  std::vector<std::vector<float>> logits(tokens.size());
  if (as_prompt) {
    forward.prompt(tokens, cache,
                   [&](size_t i, std::span<const float> row) { logits[i].assign(row.begin(), row.end()); });
    return logits;
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    const auto row = forward.decode(tokens[i], cache);
    logits[i].assign(row.begin(), row.end());
  }
  return logits;
}

class FolderFamilies : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(All, FolderFamilies, testing::Values("llama", "mistral", "qwen2", "qwen3"),
                         [](const auto& family) { return std::string(family.param); });

// fp16 keys and values round by 2⁻¹¹ each; the weights are floats.
TEST_P(FolderFamilies, LogitsEqualTransformersWithinAThousandth) {
  const std::string name = std::string("tiny_") + GetParam();
  const auto golden = read_json_file(kGolden / (name + ".json"));
  const ModelConfig config =
      model_config_from_json(read_json_file(kGolden / name / "config.json"), (kGolden / name).string());
  const HfCheckpoint source(kGolden / name, config.tie_word_embeddings);
  const auto vocabulary = golden.at("vocabulary").get<std::vector<size_t>>();
  for (const auto& sequence : golden.at("sequences")) {
    for (const bool as_prompt : {true, false}) {
      const auto logits = logits_of(source, config, sequence.at("token_ids").get<std::vector<TokenId>>(), as_prompt);
      double difference = 0, largest = 0;
      for (size_t i = 0; i < sequence.at("positions").size(); ++i) {
        const auto& row = logits[sequence["positions"][i].get<size_t>()];
        const auto expected = sequence["logits"][i].get<std::vector<double>>();
        for (size_t j = 0; j < expected.size(); ++j) {
          difference = std::max(difference, std::abs(expected[j] - row[vocabulary[j]]));
          largest = std::max(largest, std::abs(expected[j]));
        }
      }
      EXPECT_LT(difference, 1e-3 * largest) << name << (as_prompt ? " as a prompt" : " token by token");
    }
  }
}

// A small llama in 4 bits: as packed by compressed-tensors, and as the floats that the codes stand for.
class PackedFolder : public testing::TestWithParam<bool> {
 protected:
  static constexpr int64_t kHidden = 64, kInner = 128, kVocabulary = 40;
  PackedFolder()
      : symmetric_(GetParam()),
        folder_(testing::TempDir() + "/packed_" + std::to_string(::getpid()) + "_" + std::to_string(GetParam())) {}
  ~PackedFolder() override { std::filesystem::remove_all(folder_); }

  QuantizedLinear random_linear(const std::string& name, int64_t rows, int64_t cols) {
    QuantizedLinear linear;
    linear.name = name;
    linear.out_features = rows;
    linear.in_features = cols;
    linear.group_size = group_;
    linear.symmetric = symmetric_;
    for (int64_t i = 0; i < rows * cols; ++i) linear.codes.push_back(static_cast<uint8_t>(rng_.below(16)));
    for (int64_t i = 0; i < rows * cols / group_; ++i) {
      // Powers of two, so that scale times zero is an fp16 value and Q4_1 loses nothing.
      linear.scales.push_back(std::ldexp(1.0f, -5 - static_cast<int>(rng_.below(2))));
      if (!symmetric_) linear.zeros.push_back(static_cast<uint8_t>(4 + rng_.below(8)));
    }
    return linear;
  }

  // Writes the folder `packed` or, with the same values, the folder of floats.
  void write(const std::filesystem::path& folder, bool packed) {
    rng_ = Rng(7, "packed");
    std::filesystem::create_directories(folder);
    std::vector<QuantizedLinear> linears;
    const std::string layer = "model.layers.0.";
    for (const char* name : {"q_proj", "k_proj", "v_proj", "o_proj"}) {
      linears.push_back(random_linear(layer + "self_attn." + name, kHidden, kHidden));
    }
    linears.push_back(random_linear(layer + "mlp.gate_proj", kInner, kHidden));
    linears.push_back(random_linear(layer + "mlp.up_proj", kInner, kHidden));
    linears.push_back(random_linear(layer + "mlp.down_proj", kHidden, kInner));
    std::vector<TensorSpec> specs;
    for (const auto& linear : linears) {
      if (packed) {
        const auto parts = packed_specs(linear.name, linear.out_features, linear.in_features, group_, symmetric_);
        specs.insert(specs.end(), parts.begin(), parts.end());
      } else {
        specs.push_back({linear.name + ".weight", DType::kF32, {linear.out_features, linear.in_features}});
      }
    }
    specs.push_back({"model.embed_tokens.weight", DType::kF32, {kVocabulary, kHidden}});
    for (const std::string& name :
         {layer + "input_layernorm", layer + "post_attention_layernorm", std::string("model.norm")}) {
      specs.push_back({name + ".weight", DType::kF32, {kHidden}});
    }
    SafetensorsFolderWriter writer(folder, specs);
    for (const auto& linear : linears) {
      if (packed) {
        write_packed(writer, linear);
      } else {
        std::vector<float> values(linear.codes.size());
        dequantize_rows(linear, 0, linear.out_features, values);
        writer.append(linear.name + ".weight", std::as_bytes(std::span(values)));
      }
    }
    std::vector<float> table;
    for (int64_t i = 0; i < kVocabulary * kHidden; ++i) table.push_back(static_cast<float>(rng_.normal()));
    writer.append("model.embed_tokens.weight", std::as_bytes(std::span(table)));
    const std::vector<float> ones(kHidden, 1.0f);
    for (const std::string& name :
         {layer + "input_layernorm", layer + "post_attention_layernorm", std::string("model.norm")}) {
      writer.append(name + ".weight", std::as_bytes(std::span(ones)));
    }
    writer.finish();
    CompressedTensorsConfig quantization;
    quantization.group_size = group_;
    quantization.symmetric = symmetric_;
    const nlohmann::ordered_json json{{"quantization_config", compressed_tensors_config_to_json(quantization)}};
    std::ofstream(folder / "config.json") << json.dump();
  }

  static ModelConfig config() {
    ModelConfig config;
    config.model_type = "llama";
    config.hidden_size = kHidden;
    config.intermediate_size = kInner;
    config.num_hidden_layers = 1;
    config.num_attention_heads = config.num_key_value_heads = 2;
    config.head_dim = 32;
    config.vocab_size = kVocabulary;
    config.max_position_embeddings = 64;
    config.tie_word_embeddings = true;
    return config;
  }

  bool symmetric_;
  int64_t group_ = 32;
  Rng rng_{7, "packed"};
  std::filesystem::path folder_;
};
INSTANTIATE_TEST_SUITE_P(Symmetry, PackedFolder, testing::Bool());

TEST_P(PackedFolder, RunsAsTheValuesThatTheCodesStandFor) {
  write(folder_ / "packed", true);
  write(folder_ / "floats", false);
  const std::vector<TokenId> tokens{3, 17, 39, 0, 8, 21, 3};
  const CompressedTensorsCheckpoint packed(folder_ / "packed", true);
  const HfCheckpoint floats(folder_ / "floats", true);
  const auto a = logits_of(packed, config(), tokens, true), b = logits_of(floats, config(), tokens, true),
             c = logits_of(packed, config(), tokens, false);
  for (size_t i = 0; i < tokens.size(); ++i) {
    for (size_t v = 0; v < b[i].size(); ++v) {
      EXPECT_NEAR(a[i][v], b[i][v], 5e-3) << "position " << i;  // logits reach 20; 16-bit codes of the activations
      EXPECT_NEAR(c[i][v], b[i][v], 5e-3) << "position " << i;
    }
  }
}

TEST_P(PackedFolder, RefusesGroupsThatAreNoMultipleOf32) {
  group_ = 16;
  write(folder_ / "packed", true);
  const CompressedTensorsCheckpoint packed(folder_ / "packed", true);
  try {
    bind_folder(packed, config());
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("groups of 16"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace potstill::edge
