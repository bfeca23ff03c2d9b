#include "potstill/formats/model_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <string>

#include "potstill/base/checked_math.h"
#include "potstill/base/error.h"

namespace potstill {
namespace {

// Far beyond any model, and small enough that no product of sizes overflows.
constexpr int64_t kMaxWidth = int64_t{1} << 24;
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxPositions = int64_t{1} << 40;

// Typed access to config.json with errors that name the key. An explicit null counts as absent.
class ConfigReader {
 public:
  ConfigReader(const nlohmann::json& config, std::string_view where) : config_(config), where_(where) {
    if (!config.is_object()) throw Error(ErrorKind::kFormat, where, "is not a JSON object");
  }

  const nlohmann::json* find(const char* key) const {
    const auto found = config_.find(key);
    return found == config_.end() || found->is_null() ? nullptr : &*found;
  }

  bool says_null(const char* key) const {
    const auto found = config_.find(key);
    return found != config_.end() && found->is_null();
  }

  int64_t integer(const char* key, std::optional<int64_t> fallback, int64_t max, int64_t min = 1) const {
    const auto* value = find(key);
    if (value == nullptr) {
      if (fallback) return *fallback;
      fail(key, "is missing");
    }
    if (!value->is_number_integer()) fail(key, fmt::format("is {}, not an integer", value->dump()));
    const bool wraps = value->is_number_unsigned() && value->get<uint64_t>() > INT64_MAX;
    const auto number = value->get<int64_t>();
    if (wraps || number > max) fail(key, fmt::format("is {}; the limit is {}", value->dump(), max));
    if (number < min) fail(key, fmt::format("is {}; it must be at least {}", number, min));
    return number;
  }

  double number(const char* key, double fallback) const {
    const auto* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_number()) fail(key, fmt::format("is {}, not a number", value->dump()));
    const auto number = value->get<double>();
    if (!std::isfinite(number) || number <= 0) fail(key, fmt::format("is {}; it must be over 0", value->dump()));
    return number;
  }

  bool boolean(const char* key, bool fallback) const {
    const auto* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_boolean()) fail(key, fmt::format("is {}, not true or false", value->dump()));
    return value->get<bool>();
  }

  std::string string(const char* key, const std::string& fallback) const {
    const auto* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_string()) fail(key, fmt::format("is {}, not a string", value->dump()));
    return value->get<std::string>();
  }

  // One id, or a list of them. Negative ids stand for "none" in some configs.
  std::vector<int64_t> token_ids(const char* key, int64_t vocab_size) const {
    const auto* value = find(key);
    if (value == nullptr) return {};
    std::vector<int64_t> ids;
    for (const auto& id : value->is_array() ? *value : nlohmann::json::array({*value})) {
      if (!id.is_number_integer()) fail(key, fmt::format("is {}, not a token id", value->dump()));
      const bool wraps = id.is_number_unsigned() && id.get<uint64_t>() > INT64_MAX;
      const auto number = id.get<int64_t>();
      if (wraps || number >= vocab_size)
        fail(key, fmt::format("is {}, past the vocabulary of {}", id.dump(), vocab_size));
      if (number >= 0) ids.push_back(number);
    }
    return ids;
  }

  [[noreturn]] void fail(std::string_view key, std::string_view what) const {
    throw Error(ErrorKind::kFormat, where_, fmt::format("'{}' {}", key, what));
  }
  [[noreturn]] void unsupported(std::string_view key, std::string_view value, std::string_view supported) const {
    throw Error(ErrorKind::kInput, where_, fmt::format("{} '{}' is not supported", key, value),
                fmt::format("supported: {}", supported));
  }
  const std::string& where() const { return where_; }

 private:
  const nlohmann::json& config_;
  std::string where_;
};

// transformers 5 writes one object, rope_parameters; 4.x wrote rope_theta and rope_scaling.
void read_rope(const ConfigReader& reader, ModelConfig& config) {
  const auto* parameters = reader.find("rope_parameters");
  config.rope_theta = reader.number("rope_theta", 10000.0);
  if (parameters == nullptr) parameters = reader.find("rope_scaling");
  if (parameters == nullptr) return;
  const ConfigReader rope(*parameters, fmt::format("{}: RoPE", reader.where()));
  config.rope_theta = rope.number("rope_theta", config.rope_theta);
  if (rope.number("partial_rotary_factor", 1.0) != 1.0) rope.unsupported("partial_rotary_factor", "below 1", "1");
  RopeScaling& scaling = config.rope_scaling;
  scaling.rope_type = rope.string("rope_type", rope.string("type", "default"));
  if (scaling.rope_type == "default") return;
  if (scaling.rope_type != "linear" && scaling.rope_type != "llama3") {
    rope.unsupported("rope_type", scaling.rope_type, "default, linear, llama3");
  }
  if (rope.find("factor") == nullptr) rope.fail("factor", "is missing");
  scaling.factor = rope.number("factor", 1.0);
  if (scaling.rope_type == "linear") return;
  scaling.low_freq_factor = rope.number("low_freq_factor", 1.0);
  scaling.high_freq_factor = rope.number("high_freq_factor", 4.0);
  if (scaling.high_freq_factor <= scaling.low_freq_factor) {
    rope.fail("high_freq_factor", "must be over low_freq_factor");
  }
  scaling.original_max_position_embeddings =
      rope.integer("original_max_position_embeddings", config.max_position_embeddings, kMaxPositions);
}

// The window that all layers share; 0 for none. A model that mixes both kinds of layers is refused.
int64_t read_sliding_window(const ConfigReader& reader, const ModelConfig& config) {
  const bool qwen = config.model_type == "qwen2" || config.model_type == "qwen3";
  if (config.model_type == "llama" || (qwen && !reader.boolean("use_sliding_window", false))) return 0;
  // 4096 is the default of both classes; an explicit null says that there is no window
  if (reader.says_null("sliding_window")) return 0;
  const int64_t window = reader.integer("sliding_window", 4096, kMaxPositions);
  int64_t sliding_layers = config.num_hidden_layers;
  if (const auto* layer_types = reader.find("layer_types"); layer_types != nullptr && layer_types->is_array()) {
    sliding_layers = std::count(layer_types->begin(), layer_types->end(), "sliding_attention");
  } else if (qwen) {  // the layers from max_window_layers on slide; 28 is the classes' default
    sliding_layers -= std::min(config.num_hidden_layers, reader.integer("max_window_layers", 28, kMaxLayers, 0));
  }
  if (sliding_layers == 0) return 0;
  if (sliding_layers < config.num_hidden_layers) {
    reader.unsupported("sliding window", fmt::format("in {} of {} layers", sliding_layers, config.num_hidden_layers),
                       "in all layers or in none");
  }
  return window;
}

void read_shape(const ConfigReader& reader, ModelConfig& config) {
  config.vocab_size = reader.integer("vocab_size", std::nullopt, kMaxWidth);
  config.hidden_size = reader.integer("hidden_size", std::nullopt, kMaxWidth);
  config.intermediate_size = reader.integer("intermediate_size", std::nullopt, kMaxWidth);
  config.num_hidden_layers = reader.integer("num_hidden_layers", std::nullopt, kMaxLayers);
  config.num_attention_heads = reader.integer("num_attention_heads", std::nullopt, kMaxWidth);
  config.num_key_value_heads = reader.integer("num_key_value_heads", config.num_attention_heads, kMaxWidth);
  const std::optional<int64_t> class_head_dim =
      config.model_type == "qwen3" ? std::optional<int64_t>(128) : std::nullopt;
  config.head_dim = reader.integer("head_dim", class_head_dim.value_or(0), kMaxWidth, 0);
  if (config.head_dim == 0) {
    if (config.hidden_size % config.num_attention_heads != 0) {
      reader.fail("hidden_size",
                  fmt::format("is {}, no multiple of {} heads", config.hidden_size, config.num_attention_heads));
    }
    config.head_dim = config.hidden_size / config.num_attention_heads;
  }
  if (config.head_dim % 2 != 0) reader.fail("head_dim", fmt::format("is {}; RoPE needs an even one", config.head_dim));
  if (config.q_size() > kMaxWidth) reader.fail("num_attention_heads", "times head_dim is too large");
  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    reader.fail("num_attention_heads", fmt::format("is {}, no multiple of {} key/value heads",
                                                   config.num_attention_heads, config.num_key_value_heads));
  }
  config.max_position_embeddings = reader.integer("max_position_embeddings", 2048, kMaxPositions);
}

void read_biases(const ConfigReader& reader, ModelConfig& config) {
  const std::string& type = config.model_type;
  if (type == "qwen2") config.attention_bias = true;  // of q, k, v; the class has no choice
  if (type == "llama" || type == "qwen3") {
    config.attention_bias = config.attention_out_bias = reader.boolean("attention_bias", false);
  }
  if (type == "llama") config.mlp_bias = reader.boolean("mlp_bias", false);
  config.qk_norm = type == "qwen3";
}

std::string_view architecture_of(std::string_view model_type) {
  if (model_type == "mistral") return "MistralForCausalLM";
  if (model_type == "qwen2") return "Qwen2ForCausalLM";
  if (model_type == "qwen3") return "Qwen3ForCausalLM";
  return "LlamaForCausalLM";
}

}  // namespace

ModelConfig model_config_from_json(const nlohmann::json& json, std::string_view where) {
  const ConfigReader reader(json, where);
  ModelConfig config;
  config.model_type = reader.string("model_type", "");
  if (config.model_type.empty()) reader.fail("model_type", "is missing");
  constexpr std::array<std::string_view, 4> kSupported = {"llama", "mistral", "qwen2", "qwen3"};
  if (std::ranges::find(kSupported, config.model_type) == kSupported.end()) {
    reader.unsupported("model_type", config.model_type, "llama (SmolLM2 too), mistral, qwen2, qwen3");
  }
  read_shape(reader, config);
  config.rms_norm_eps = reader.number("rms_norm_eps", 1e-6);
  config.hidden_act = reader.string("hidden_act", "silu");
  if (config.hidden_act == "swish") config.hidden_act = "silu";  // transformers' other name for it
  if (config.hidden_act != "silu") reader.unsupported("hidden_act", config.hidden_act, "silu");
  read_rope(reader, config);
  read_biases(reader, config);
  config.sliding_window = read_sliding_window(reader, config);
  config.tie_word_embeddings = reader.boolean("tie_word_embeddings", false);
  const auto first = [](const std::vector<int64_t>& ids) { return ids.empty() ? std::nullopt : std::optional(ids[0]); };
  config.bos_token_id = first(reader.token_ids("bos_token_id", config.vocab_size));
  config.pad_token_id = first(reader.token_ids("pad_token_id", config.vocab_size));
  config.eos_token_ids = reader.token_ids("eos_token_id", config.vocab_size);
  config.torch_dtype = reader.string("dtype", reader.string("torch_dtype", ""));
  return config;
}

nlohmann::ordered_json model_config_to_json(const ModelConfig& config) {
  nlohmann::ordered_json json = {{"architectures", nlohmann::ordered_json::array({architecture_of(config.model_type)})},
                                 {"model_type", config.model_type},
                                 {"vocab_size", config.vocab_size},
                                 {"hidden_size", config.hidden_size},
                                 {"intermediate_size", config.intermediate_size},
                                 {"num_hidden_layers", config.num_hidden_layers},
                                 {"num_attention_heads", config.num_attention_heads},
                                 {"num_key_value_heads", config.num_key_value_heads},
                                 {"head_dim", config.head_dim},
                                 {"hidden_act", config.hidden_act},
                                 {"max_position_embeddings", config.max_position_embeddings},
                                 {"initializer_range", 0.02},
                                 {"rms_norm_eps", config.rms_norm_eps},
                                 {"tie_word_embeddings", config.tie_word_embeddings},
                                 {"attention_dropout", 0.0},
                                 {"use_cache", true}};
  const std::string& type = config.model_type;
  if (type == "llama" || type == "qwen3") json["attention_bias"] = config.attention_bias;
  if (type == "llama") json["mlp_bias"] = config.mlp_bias;
  if (type == "mistral" || config.sliding_window > 0) {
    json["sliding_window"] = config.sliding_window > 0 ? nlohmann::ordered_json(config.sliding_window) : nullptr;
  }
  if (type == "qwen2" || type == "qwen3") {
    json["use_sliding_window"] = config.sliding_window > 0;
    json["max_window_layers"] = config.sliding_window > 0 ? 0 : config.num_hidden_layers;
  }
  // Both spellings of RoPE, so that transformers 4 and 5 read the same.
  const RopeScaling& scaling = config.rope_scaling;
  nlohmann::ordered_json rope = {{"rope_type", scaling.rope_type}};
  if (scaling.rope_type != "default") rope["factor"] = scaling.factor;
  if (scaling.rope_type == "llama3") {
    rope["low_freq_factor"] = scaling.low_freq_factor;
    rope["high_freq_factor"] = scaling.high_freq_factor;
    rope["original_max_position_embeddings"] = scaling.original_max_position_embeddings;
  }
  json["rope_theta"] = config.rope_theta;
  json["rope_scaling"] = scaling.rope_type == "default" ? nlohmann::ordered_json(nullptr) : rope;
  rope["rope_theta"] = config.rope_theta;
  json["rope_parameters"] = rope;
  json["bos_token_id"] = config.bos_token_id ? nlohmann::ordered_json(*config.bos_token_id) : nullptr;
  const auto& eos = config.eos_token_ids;
  json["eos_token_id"] = eos.size() == 1 ? nlohmann::ordered_json(eos[0]) : nlohmann::ordered_json(eos);
  if (eos.empty()) json["eos_token_id"] = nullptr;
  json["pad_token_id"] = config.pad_token_id ? nlohmann::ordered_json(*config.pad_token_id) : nullptr;
  if (!config.torch_dtype.empty()) {
    json["dtype"] = config.torch_dtype;        // transformers 5
    json["torch_dtype"] = config.torch_dtype;  // up to 4.x
  }
  return json;
}

// fp32 in transformers' order of operations: a rounding that differs grows with the position.
std::vector<float> rope_inverse_frequencies(const ModelConfig& config) {
  std::vector<float> frequencies(static_cast<size_t>(config.head_dim / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(config.head_dim);
    frequencies[i] = 1.0f / std::pow(static_cast<float>(config.rope_theta), exponent);
  }
  const RopeScaling& scaling = config.rope_scaling;
  if (scaling.rope_type == "linear") {
    for (float& frequency : frequencies) frequency /= static_cast<float>(scaling.factor);
  }
  if (scaling.rope_type != "llama3") return frequencies;
  // Llama 3.1: long waves are slowed by `factor`, short ones kept, those between blended.
  const double original = static_cast<double>(scaling.original_max_position_embeddings);
  const double low_wavelength = original / scaling.low_freq_factor,
               high_wavelength = original / scaling.high_freq_factor;
  for (float& frequency : frequencies) {
    const double wavelength = 2 * std::numbers::pi / frequency;
    if (wavelength < high_wavelength) continue;
    const double slowed = frequency / scaling.factor;
    if (wavelength > low_wavelength) {
      frequency = static_cast<float>(slowed);
    } else {
      const double smooth =
          (original / wavelength - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
      frequency = static_cast<float>((1 - smooth) * slowed + smooth * frequency);
    }
  }
  return frequencies;
}

std::vector<ExpectedWeight> expected_weights(const ModelConfig& config) {
  const int64_t hidden = config.hidden_size, ff = config.intermediate_size;
  std::vector<ExpectedWeight> weights = {{"model.embed_tokens.weight", {config.vocab_size, hidden}}};
  const auto add_linear = [&](const std::string& module, int64_t out, int64_t in, bool bias) {
    weights.push_back({module + ".weight", {out, in}});
    if (bias) weights.push_back({module + ".bias", {out}});
  };
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const std::string prefix = fmt::format("model.layers.{}.", layer);
    weights.push_back({prefix + "input_layernorm.weight", {hidden}});
    add_linear(prefix + "self_attn.q_proj", config.q_size(), hidden, config.attention_bias);
    add_linear(prefix + "self_attn.k_proj", config.kv_size(), hidden, config.attention_bias);
    add_linear(prefix + "self_attn.v_proj", config.kv_size(), hidden, config.attention_bias);
    if (config.qk_norm) {
      weights.push_back({prefix + "self_attn.q_norm.weight", {config.head_dim}});
      weights.push_back({prefix + "self_attn.k_norm.weight", {config.head_dim}});
    }
    add_linear(prefix + "self_attn.o_proj", hidden, config.q_size(), config.attention_out_bias);
    weights.push_back({prefix + "post_attention_layernorm.weight", {hidden}});
    add_linear(prefix + "mlp.gate_proj", ff, hidden, config.mlp_bias);
    add_linear(prefix + "mlp.up_proj", ff, hidden, config.mlp_bias);
    add_linear(prefix + "mlp.down_proj", hidden, ff, config.mlp_bias);
  }
  weights.push_back({"model.norm.weight", {hidden}});
  if (!config.tie_word_embeddings) weights.push_back({"lm_head.weight", {config.vocab_size, hidden}});
  return weights;
}

int64_t num_parameters(const ModelConfig& config) {
  int64_t total = 0;
  for (const ExpectedWeight& weight : expected_weights(config)) total += num_elements(weight.shape).value();
  return total;
}

}  // namespace potstill
