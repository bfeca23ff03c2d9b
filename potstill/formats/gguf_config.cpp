// ModelConfig out of a GGUF's keys.          ggml-org/ggml docs/gguf.md, section "LLM"
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numbers>
#include <string>

#include "potstill/base/error.h"
#include "potstill/formats/gguf_checkpoint.h"

namespace potstill {
namespace {

// A float as its author wrote it: 1e-05, not the double 9.99999974e-06 that the file's fp32 widens to.
double shortest_decimal(double fp32) { return std::stod(fmt::format("{}", static_cast<float>(fp32))); }

// The keys of config.json that GGUF has under other names; model_config_from_json checks the values.
nlohmann::json shape_as_json(const GgufFile& file, const std::string& arch) {
  const auto integer = [&](std::string_view key) { return file.require_integer(fmt::format("{}.{}", arch, key)); };
  const TensorView* table = file.find_tensor("token_embd.weight");
  if (table == nullptr || table->shape.size() != 2) {
    throw Error(ErrorKind::kFormat, file.where(), "has no matrix 'token_embd.weight'",
                "it is no language model, or only a part of one");
  }
  nlohmann::json json = {
      {"model_type", arch},
      {"vocab_size", table->shape[0]},
      {"hidden_size", integer("embedding_length")},
      {"intermediate_size", integer("feed_forward_length")},
      {"num_hidden_layers", integer("block_count")},
      {"num_attention_heads", integer("attention.head_count")},
      {"max_position_embeddings", integer("context_length")},
      {"rms_norm_eps", shortest_decimal(file.require_number(arch + ".attention.layer_norm_rms_epsilon"))},
      {"rope_theta", shortest_decimal(file.number(arch + ".rope.freq_base").value_or(10000.0))},
      {"tie_word_embeddings", file.find_tensor("output.weight") == nullptr}};
  if (const auto heads = file.integer(arch + ".attention.head_count_kv")) json["num_key_value_heads"] = *heads;
  if (const auto length = file.integer(arch + ".attention.key_length")) {
    json["head_dim"] = *length;
  } else {
    json["head_dim"] = nullptr;  // hidden_size / heads in every architecture, unlike qwen3's class default
    const int64_t heads = json["num_attention_heads"].get<int64_t>();
    if (heads > 0) json["head_dim"] = json["hidden_size"].get<int64_t>() / heads;
  }
  for (const auto& [json_key, key] : {std::pair("bos_token_id", "tokenizer.ggml.bos_token_id"),
                                      std::pair("eos_token_id", "tokenizer.ggml.eos_token_id"),
                                      std::pair("pad_token_id", "tokenizer.ggml.padding_token_id")}) {
    if (const auto id = file.integer(key)) json[json_key] = *id;
  }
  return json;
}

// GGUF keeps llama3's rule as its result, one divisor a frequency; the rule's numbers are found again and must give
// these divisors back.
void read_rope_factors(const GgufFile& file, const TensorView& factors, ModelConfig& config) {
  const auto count = static_cast<size_t>(config.head_dim / 2);
  if (factors.dtype != DType::kF32 || factors.shape != std::vector<int64_t>{config.head_dim / 2}) {
    throw Error(ErrorKind::kFormat, file.where(), fmt::format("'rope_freqs.weight' is not {} F32 values", count));
  }
  std::vector<float> stored(count);
  std::memcpy(stored.data(), factors.bytes.data(), factors.bytes.size());
  // Every Llama 3 has these; only the factor differs.
  config.rope_scaling = {.rope_type = "llama3",
                         .factor = *std::ranges::max_element(stored),
                         .low_freq_factor = 1.0,
                         .high_freq_factor = 4.0,
                         .original_max_position_embeddings = 8192};
  const std::vector<float> expected = llama3_rope_factors(config);
  for (size_t i = 0; i < count; ++i) {
    if (std::fabs(stored[i] - expected[i]) <= 1e-4f * std::fabs(expected[i])) continue;
    throw Error(ErrorKind::kInput, file.where(),
                fmt::format("rope_freqs.weight[{}] is {} where Llama 3's scaling by {} gives {}", i, stored[i],
                            config.rope_scaling.factor, expected[i]),
                "only Llama 3's RoPE scaling is supported; open the model's Hugging Face folder instead");
  }
  if (config.rope_scaling.factor == 1.0) config.rope_scaling = {};
}

void read_rope_scaling(const GgufFile& file, const std::string& arch, ModelConfig& config) {
  const auto rotated = file.integer(arch + ".rope.dimension_count");
  if (rotated && *rotated != config.head_dim) {
    throw Error(ErrorKind::kInput, file.where(),
                fmt::format("RoPE turns {} of a head's {} values, which is not supported", *rotated, config.head_dim));
  }
  if (const TensorView* factors = file.find_tensor("rope_freqs.weight"))
    return read_rope_factors(file, *factors, config);
  const std::string type = file.string(arch + ".rope.scaling.type").value_or("none");
  if (type == "none") return;
  if (type != "linear") {
    throw Error(ErrorKind::kInput, file.where(), fmt::format("RoPE scaling '{}' is not supported", type),
                "supported: none, linear, Llama 3's rope_freqs.weight");
  }
  config.rope_scaling = {.rope_type = "linear", .factor = file.require_number(arch + ".rope.scaling.factor")};
  if (!(config.rope_scaling.factor > 0)) {
    throw Error(ErrorKind::kFormat, file.where(), fmt::format("'{}.rope.scaling.factor' is not over 0", arch));
  }
}

}  // namespace

ModelConfig model_config_from_gguf(const GgufFile& file) {
  const std::string arch = file.require_string("general.architecture");
  if (arch != "llama" && arch != "qwen2" && arch != "qwen3") {
    throw Error(ErrorKind::kInput, file.where(), fmt::format("architecture '{}' is not supported", arch),
                "supported: llama (Mistral and SmolLM2 too), qwen2, qwen3");
  }
  if (file.integer("split.count").value_or(1) > 1) {
    throw Error(ErrorKind::kInput, file.where(), "is one part of a split model",
                "join the parts: llama-gguf-split --merge FIRST-PART OUT.gguf");
  }
  if (file.integer(arch + ".expert_count").value_or(0) > 0) {
    throw Error(ErrorKind::kInput, file.where(), "is a mixture of experts, which is not supported");
  }
  ModelConfig config = model_config_from_json(shape_as_json(file, arch), file.where());
  config.attention_bias = file.find_tensor("blk.0.attn_q.bias") != nullptr;
  config.attention_out_bias = file.find_tensor("blk.0.attn_output.bias") != nullptr;
  config.mlp_bias = file.find_tensor("blk.0.ffn_gate.bias") != nullptr;
  config.sliding_window = std::max<int64_t>(0, file.integer(arch + ".attention.sliding_window").value_or(0));
  read_rope_scaling(file, arch, config);
  return config;
}

std::vector<float> llama3_rope_factors(const ModelConfig& config) {
  ModelConfig plain = config;
  plain.rope_scaling = {};
  const auto before = rope_inverse_frequencies(plain);
  const RopeScaling& scaling = config.rope_scaling;
  const double original = static_cast<double>(scaling.original_max_position_embeddings);
  std::vector<float> factors(before.size(), 1.0f);
  for (size_t i = 0; i < before.size(); ++i) {
    const double wavelength = 2 * std::numbers::pi / before[i];
    if (wavelength < original / scaling.high_freq_factor) continue;
    if (wavelength > original / scaling.low_freq_factor) {
      factors[i] = static_cast<float>(scaling.factor);
    } else {
      const double smooth =
          (original / wavelength - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
      factors[i] = static_cast<float>(1 / ((1 - smooth) / scaling.factor + smooth));
    }
  }
  return factors;
}

}  // namespace potstill
