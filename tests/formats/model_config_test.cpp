#include "potstill/formats/model_config.h"

#include <gmock/gmock.h>

#include <cmath>

#include "format_files.h"

namespace potstill {
namespace {

using testing::HasSubstr;

nlohmann::json golden() { return nlohmann::json::parse(read_file(kGolden / "configs.json")); }

nlohmann::json small_llama() {
  return {{"model_type", "llama"},    {"vocab_size", 320},      {"hidden_size", 96},
          {"intermediate_size", 160}, {"num_hidden_layers", 2}, {"num_attention_heads", 6}};
}

std::string refusal(const char* key, nlohmann::json value, ErrorKind kind = ErrorKind::kFormat) {
  auto json = small_llama();
  json[key] = std::move(value);
  return error_of(kind, [&] { model_config_from_json(json, "config.json"); });
}

TEST(ModelConfigGolden, BothSpellingsGiveTransformersFrequencies) {
  const auto all = golden();
  for (const auto& [name, entry] : all.items()) {
    for (const char* spelling : {"config", "config_4x"}) {
      const ModelConfig config = model_config_from_json(entry[spelling], name);
      const auto frequencies = rope_inverse_frequencies(config);
      const auto expected = entry["inverse_frequencies"].get<std::vector<double>>();
      ASSERT_EQ(frequencies.size(), expected.size()) << name << " " << spelling;
      for (size_t i = 0; i < expected.size(); ++i) {
        // two roundings of fp32: pow and the division or blend
        ASSERT_NEAR(frequencies[i], expected[i], 2 * 0x1.0p-23 * expected[i]) << name << " " << spelling << " " << i;
      }
    }
  }
}

TEST(ModelConfigGolden, ReadsWhatEachClassSays) {
  const auto read = [all = golden()](const char* name) { return model_config_from_json(all[name]["config"], name); };
  const ModelConfig llama = read("llama");
  EXPECT_EQ(llama.head_dim, 16);
  EXPECT_EQ(llama.num_key_value_heads, 2);
  EXPECT_TRUE(llama.tie_word_embeddings);
  EXPECT_EQ(llama.bos_token_id, 1);
  EXPECT_EQ(llama.eos_token_ids, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(llama.torch_dtype, "bfloat16");
  const ModelConfig llama3 = read("llama3");
  EXPECT_EQ(llama3.head_dim, 128);
  EXPECT_EQ(llama3.rope_theta, 500000.0);
  EXPECT_EQ(llama3.rope_scaling.rope_type, "llama3");
  EXPECT_EQ(llama3.rope_scaling.factor, 32.0);
  EXPECT_EQ(llama3.rope_scaling.original_max_position_embeddings, 8192);
  EXPECT_TRUE(llama3.attention_bias && llama3.attention_out_bias && llama3.mlp_bias);
  EXPECT_EQ(read("linear").rope_scaling.factor, 4.0);
  EXPECT_EQ(read("mistral").sliding_window, 0);
  EXPECT_EQ(read("mistral_window").sliding_window, 64);
  const ModelConfig qwen2 = read("qwen2");
  EXPECT_TRUE(qwen2.attention_bias && !qwen2.attention_out_bias && !qwen2.qk_norm);
  EXPECT_EQ(qwen2.sliding_window, 0);
  EXPECT_EQ(qwen2.rope_theta, 1e6);
  const ModelConfig qwen3 = read("qwen3");
  EXPECT_TRUE(qwen3.qk_norm && !qwen3.attention_bias);
  EXPECT_EQ(qwen3.head_dim, 128);
}

TEST(ModelConfigGolden, WrittenConfigReadsBackTheSame) {
  const auto all = golden();
  for (const auto& [name, entry] : all.items()) {
    const auto written = model_config_to_json(model_config_from_json(entry["config"], name));
    const auto again = model_config_to_json(model_config_from_json(nlohmann::json(written), name));
    EXPECT_EQ(written.dump(), again.dump()) << name;
  }
}

TEST(ModelConfig, FillsWhatIsAbsent) {
  const ModelConfig config = model_config_from_json(small_llama(), "config.json");
  EXPECT_EQ(config.num_key_value_heads, 6);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.rms_norm_eps, 1e-6);
  EXPECT_EQ(config.rope_theta, 10000.0);
  EXPECT_FALSE(config.tie_word_embeddings);
}

TEST(ModelConfig, AbsentAndNullWindowsOfMistralDiffer) {
  auto json = small_llama();
  json["model_type"] = "mistral";
  EXPECT_EQ(model_config_from_json(json, "c").sliding_window, 4096);  // the class's default
  json["sliding_window"] = nullptr;
  EXPECT_EQ(model_config_from_json(json, "c").sliding_window, 0);
}

TEST(ModelConfig, NamesTheKeyAtFault) {
  EXPECT_THAT(refusal("vocab_size", nullptr), HasSubstr("config.json: 'vocab_size' is missing"));
  EXPECT_THAT(refusal("vocab_size", "many"), HasSubstr("is \"many\", not an integer"));
  EXPECT_THAT(refusal("hidden_size", 0), HasSubstr("'hidden_size' is 0; it must be at least 1"));
  EXPECT_THAT(refusal("hidden_size", 100), HasSubstr("no multiple of 6 heads"));
  EXPECT_THAT(refusal("num_hidden_layers", int64_t{1} << 40), HasSubstr("the limit is 4096"));
  EXPECT_THAT(refusal("vocab_size", UINT64_MAX), HasSubstr("the limit is"));
  EXPECT_THAT(refusal("num_key_value_heads", 4), HasSubstr("no multiple of 4 key/value heads"));
  EXPECT_THAT(refusal("head_dim", 15), HasSubstr("RoPE needs an even one"));
  EXPECT_THAT(refusal("rms_norm_eps", -1.0), HasSubstr("must be over 0"));
  EXPECT_THAT(refusal("eos_token_id", 320), HasSubstr("past the vocabulary of 320"));
  EXPECT_THAT(refusal("tie_word_embeddings", 1), HasSubstr("not true or false"));
}

TEST(ModelConfig, NamesWhatIsNotSupported) {
  EXPECT_THAT(refusal("model_type", "gpt2", ErrorKind::kInput), HasSubstr("model_type 'gpt2' is not supported"));
  EXPECT_THAT(refusal("hidden_act", "gelu", ErrorKind::kInput), HasSubstr("hidden_act 'gelu'"));
  const nlohmann::json yarn = {{"rope_type", "yarn"}, {"factor", 4.0}};
  EXPECT_THAT(refusal("rope_scaling", yarn, ErrorKind::kInput), HasSubstr("rope_type 'yarn' is not supported"));
  const nlohmann::json partial = {{"partial_rotary_factor", 0.5}};
  EXPECT_THAT(refusal("rope_parameters", partial, ErrorKind::kInput), HasSubstr("partial_rotary_factor"));
}

TEST(ModelConfig, CountsTiedTablesOnce) {
  ModelConfig config = model_config_from_json(small_llama(), "c");
  const int64_t untied = num_parameters(config);
  config.tie_word_embeddings = true;
  EXPECT_EQ(untied - num_parameters(config), 320 * 96);
  // by hand: table, per layer q, k, v, o, gate, up, down and two norms, last norm
  EXPECT_EQ(num_parameters(config), 320 * 96 + 2 * (4 * 96 * 96 + 3 * 96 * 160 + 2 * 96) + 96);
}

}  // namespace
}  // namespace potstill
