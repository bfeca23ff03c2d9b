// ModelConfig: the shape of a decoder-only transformer, in the words of Hugging Face's config.json.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace potstill {

struct RopeScaling {
  std::string rope_type = "default";  // "default", "linear", "llama3"
  double factor = 1.0;
  double low_freq_factor = 1.0, high_freq_factor = 4.0;  // llama3
  int64_t original_max_position_embeddings = 0;          // llama3
};

struct ModelConfig {
  std::string model_type;  // "llama", "mistral", "qwen2", "qwen3"
  int64_t vocab_size = 0, hidden_size = 0, intermediate_size = 0;
  int64_t num_hidden_layers = 0, num_attention_heads = 0, num_key_value_heads = 0, head_dim = 0;
  int64_t max_position_embeddings = 2048;
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000.0;
  RopeScaling rope_scaling;
  bool tie_word_embeddings = false;
  bool attention_bias = false;  // q, k, v (qwen2: always; its o_proj has none)
  bool attention_out_bias = false;
  bool mlp_bias = false;
  bool qk_norm = false;        // qwen3: RMSNorm over head_dim of q and k, before RoPE
  int64_t sliding_window = 0;  // 0 = none
  std::string hidden_act = "silu";
  std::optional<int64_t> bos_token_id, pad_token_id;
  std::vector<int64_t> eos_token_ids;  // union of config.json and generation_config.json
  std::string torch_dtype;             // "bfloat16", "float16", "float32" as the checkpoint says; may be empty

  int64_t q_size() const { return num_attention_heads * head_dim; }
  int64_t kv_size() const { return num_key_value_heads * head_dim; }
};

// Reads both spellings of RoPE (rope_theta + rope_scaling, rope_parameters). Throws Error(kFormat | kInput): missing
// key, shape that cannot be, unsupported model_type, activation or rope_type — each by name, with what is supported.
ModelConfig model_config_from_json(const nlohmann::json& config, std::string_view where);

// A config.json that transformers 4.x and 5.x load (both spellings of RoPE, dtype under both names).
nlohmann::ordered_json model_config_to_json(const ModelConfig& config);

// cos/sin frequencies of RoPE after scaling: head_dim / 2 values.         formats.md section 2; Llama 3.1's rule
std::vector<float> rope_inverse_frequencies(const ModelConfig& config);

// Every weight of the architecture under its Hugging Face name, with its shape, in the order of the forward pass.
struct ExpectedWeight {
  std::string name;
  std::vector<int64_t> shape;
};
std::vector<ExpectedWeight> expected_weights(const ModelConfig& config);

// Number of parameters, tied tables counted once.
int64_t num_parameters(const ModelConfig& config);

}  // namespace potstill
