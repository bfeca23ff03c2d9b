#include "potstill/formats/peft_adapter.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "potstill/base/atomic_file.h"
#include "potstill/base/check.h"
#include "potstill/base/error.h"
#include "potstill/formats/strict_json.h"

namespace potstill {
namespace {

constexpr std::string_view kPrefix = "base_model.model.";  // PeftModel's wrapping of the base model
constexpr std::string_view kSuffixA = ".lora_A.weight", kSuffixB = ".lora_B.weight";
constexpr const char *kConfigFile = "adapter_config.json", *kWeightsFile = "adapter_model.safetensors";

[[noreturn]] void fail(std::string_view where, std::string_view key, const std::string& what) {
  throw Error(ErrorKind::kInput, where, fmt::format("'{}' {}", key, what));
}

// Settings that change what the adapter computes and that we do not have: each must be off.
void require_plain_lora(const nlohmann::json& config, std::string_view where) {
  for (const char* key : {"use_dora", "fan_in_fan_out", "lora_bias", "use_qalora", "use_bdlora"}) {
    const auto found = config.find(key);
    if (found != config.end() && !found->is_null() && *found != false) {
      fail(where, key, fmt::format("is {}, which is not supported", found->dump()));
    }
  }
  for (const char* key : {"modules_to_save", "layers_to_transform", "layer_replication", "target_parameters",
                          "trainable_token_indices", "exclude_modules", "alora_invocation_tokens", "arrow_config",
                          "megatron_config", "kasa_config", "monteclora_config", "velora_config"}) {
    const auto found = config.find(key);
    if (found != config.end() && !found->is_null() && !(found->is_structured() && found->empty())) {
      fail(where, key, fmt::format("is {}, which is not supported", found->dump()));
    }
  }
  if (const auto bias = config.find("bias"); bias != config.end() && *bias != "none") {
    fail(where, "bias", fmt::format("is {}; only adapters without trained biases are supported", bias->dump()));
  }
}

double positive_number(const nlohmann::json& value, std::string_view where, std::string_view key) {
  const bool valid = value.is_number() && std::isfinite(value.get<double>()) && value.get<double>() > 0;
  if (!valid) fail(where, key, fmt::format("is {}; a number over 0 is needed", value.dump()));
  return value.get<double>();
}

int64_t rank(const nlohmann::json& value, std::string_view where, std::string_view key) {
  const bool valid = value.is_number_integer() && value.get<int64_t>() >= 1 && value.get<int64_t>() <= (1 << 20);
  if (!valid) fail(where, key, fmt::format("is {}; a rank of 1 or more is needed", value.dump()));
  return value.get<int64_t>();
}

std::vector<std::string> read_targets(const nlohmann::json& config, std::string_view where) {
  const auto found = config.find("target_modules");
  if (found == config.end() || found->is_null()) return {};
  if (found->is_string()) return {found->get<std::string>()};  // "all-linear", or a pattern
  if (!found->is_array()) fail(where, "target_modules", fmt::format("is {}, not names", found->dump()));
  std::vector<std::string> targets;
  for (const auto& target : *found) {
    if (!target.is_string()) fail(where, "target_modules", fmt::format("holds {}, no name", target.dump()));
    targets.push_back(target.get<std::string>());
  }
  std::ranges::sort(targets);
  return targets;
}

// PEFT matches a pattern's key as a regular expression at the end of a module's name; plain names are what is written.
template <class Map>
auto find_pattern(const Map& patterns, std::string_view module) {
  return std::ranges::find_if(patterns, [&](const auto& pattern) {
    const std::string_view key = pattern.first;
    const bool at_dot =
        module.size() == key.size() || (module.size() > key.size() && module[module.size() - key.size() - 1] == '.');
    return module.ends_with(key) && at_dot;
  });
}

struct FactorName {
  std::string module;
  bool is_a = false;
};

std::optional<FactorName> parse_factor_name(std::string_view name) {
  if (!name.starts_with(kPrefix)) return std::nullopt;
  name.remove_prefix(kPrefix.size());
  for (const auto suffix : {kSuffixA, kSuffixB}) {
    if (name.ends_with(suffix)) {
      return FactorName{.module = std::string(name.substr(0, name.size() - suffix.size())), .is_a = suffix == kSuffixA};
    }
  }
  return std::nullopt;
}

// A pattern that matches nothing is a regular expression that we do not have, or meant for another model.
template <class Map>
void require_used(const Map& patterns, const std::map<std::string, PeftPair>& pairs, std::string_view where,
                  std::string_view key) {
  for (const auto& pattern : patterns) {
    const Map one = {pattern};
    const bool used =
        std::ranges::any_of(pairs, [&](const auto& pair) { return find_pattern(one, pair.first) != one.end(); });
    if (!used) fail(where, key, fmt::format("names '{}', which ends no adapted module's name", pattern.first));
  }
}

nlohmann::ordered_json whole_if_possible(double value) {
  if (value == std::floor(value) && std::fabs(value) < 1e15) return static_cast<int64_t>(value);
  return value;
}

std::string shape_text(const TensorView& tensor) { return fmt::format("[{}]", fmt::join(tensor.shape, ", ")); }

}  // namespace

nlohmann::ordered_json peft_config_to_json(const PeftConfig& config) {
  nlohmann::ordered_json targets = config.target_modules;
  if (config.target_modules == std::vector<std::string>{"all-linear"}) targets = "all-linear";
  return {{"peft_type", "LORA"},
          {"task_type", "CAUSAL_LM"},
          {"base_model_name_or_path", config.base_model},
          {"r", config.r},
          {"lora_alpha", whole_if_possible(config.lora_alpha)},
          {"lora_dropout", config.lora_dropout},
          {"use_rslora", config.use_rslora},
          {"use_dora", false},
          {"bias", "none"},
          {"fan_in_fan_out", false},
          {"inference_mode", true},
          {"init_lora_weights", true},
          {"modules_to_save", nullptr},
          {"target_modules", targets},
          {"rank_pattern", nlohmann::ordered_json(config.rank_pattern)},
          {"alpha_pattern", nlohmann::ordered_json(config.alpha_pattern)}};
}

PeftConfig peft_config_from_json(const nlohmann::json& json, std::string_view where) {
  if (!json.is_object()) throw Error(ErrorKind::kFormat, where, "is not a JSON object");
  const auto type = json.find("peft_type");
  if (type == json.end() || *type != "LORA") {
    fail(where, "peft_type",
         fmt::format("is {}; only LORA is supported", type == json.end() ? "missing" : type->dump()));
  }
  require_plain_lora(json, where);
  PeftConfig config;
  for (const char* key : {"r", "lora_alpha"}) {
    if (!json.contains(key)) fail(where, key, "is missing");
  }
  config.r = rank(json["r"], where, "r");
  config.lora_alpha = positive_number(json["lora_alpha"], where, "lora_alpha");
  if (const auto base = json.find("base_model_name_or_path"); base != json.end() && base->is_string()) {
    config.base_model = base->get<std::string>();
  }
  if (const auto dropout = json.find("lora_dropout"); dropout != json.end() && dropout->is_number()) {
    config.lora_dropout = dropout->get<double>();
  }
  if (const auto rslora = json.find("use_rslora"); rslora != json.end() && rslora->is_boolean()) {
    config.use_rslora = rslora->get<bool>();
  }
  config.target_modules = read_targets(json, where);
  for (const char* key : {"rank_pattern", "alpha_pattern"}) {
    const auto found = json.find(key);
    if (found == json.end() || found->is_null()) continue;
    if (!found->is_object()) fail(where, key, fmt::format("is {}, not an object", found->dump()));
    for (const auto& [module, value] : found->items()) {
      if (std::string_view(key) == "rank_pattern") {
        config.rank_pattern.emplace(module, rank(value, where, module));
      } else {
        config.alpha_pattern.emplace(module, positive_number(value, where, module));
      }
    }
  }
  return config;
}

PeftAdapter::PeftAdapter(const std::filesystem::path& folder) : folder_(folder) {
  for (const char* name : {kConfigFile, kWeightsFile}) {
    if (std::filesystem::exists(folder / name)) continue;
    throw Error(ErrorKind::kIo, folder.string(), fmt::format("has no {}", name), "give the folder of a PEFT adapter");
  }
  const auto config_path = (folder / kConfigFile).string();
  config_ = peft_config_from_json(parse_strict_json(read_file(config_path), config_path), config_path);
  file_ = std::make_unique<SafetensorsFile>(folder / kWeightsFile);
  std::map<std::string, PeftPair> pairs;
  for (const TensorView& tensor : file_->tensors()) {
    const auto name = parse_factor_name(tensor.name);
    if (!name || tensor.shape.size() != 2 || !is_float(tensor.dtype) || tensor.dtype == DType::kF64) {
      throw Error(ErrorKind::kFormat, file_->where(),
                  fmt::format("tensor '{}' {} {} is no LoRA factor of a linear", tensor.name, dtype_name(tensor.dtype),
                              shape_text(tensor)),
                  "expected base_model.model.<module>.lora_A.weight and …lora_B.weight in F32, F16 or BF16");
    }
    PeftPair& pair = pairs[name->module];
    (name->is_a ? pair.lora_a : pair.lora_b) = tensor;
  }
  if (pairs.empty()) throw Error(ErrorKind::kFormat, file_->where(), "holds no tensors");
  require_used(config_.rank_pattern, pairs, config_path, "rank_pattern");
  require_used(config_.alpha_pattern, pairs, config_path, "alpha_pattern");
  for (auto& [module, pair] : pairs) {
    pair.module = module;
    if (pair.lora_a.name.empty() || pair.lora_b.name.empty()) {
      throw Error(ErrorKind::kFormat, file_->where(),
                  fmt::format("'{}' has no {}", module, pair.lora_a.name.empty() ? "lora_A" : "lora_B"));
    }
    const auto own_rank = find_pattern(config_.rank_pattern, module);
    const int64_t r = own_rank == config_.rank_pattern.end() ? config_.r : own_rank->second;
    if (pair.lora_a.shape[0] != r || pair.lora_b.shape[1] != r) {
      throw Error(ErrorKind::kFormat, file_->where(),
                  fmt::format("'{}' has lora_A {} and lora_B {} but the config says rank {}", module,
                              shape_text(pair.lora_a), shape_text(pair.lora_b), r));
    }
    const auto own_alpha = find_pattern(config_.alpha_pattern, module);
    const double alpha = own_alpha == config_.alpha_pattern.end() ? config_.lora_alpha : own_alpha->second;
    pair.scale = alpha / (config_.use_rslora ? std::sqrt(static_cast<double>(r)) : static_cast<double>(r));
    pairs_.push_back(pair);
  }
}

const PeftPair* PeftAdapter::find(std::string_view module) const {
  const auto found = std::ranges::lower_bound(pairs_, module, std::ranges::less{}, &PeftPair::module);
  return found != pairs_.end() && found->module == module ? &*found : nullptr;
}

void write_peft_adapter(const std::filesystem::path& folder, const PeftConfig& config,
                        const std::vector<PeftPair>& pairs) {
  std::error_code failure;
  std::filesystem::create_directories(folder, failure);
  if (failure) throw Error(ErrorKind::kIo, folder.string(), fmt::format("cannot make: {}", failure.message()));
  std::vector<TensorSpec> specs;
  std::vector<std::span<const std::byte>> data;
  const auto add = [&](const std::string& module, std::string_view suffix, const TensorView& tensor) {
    specs.push_back({fmt::format("{}{}{}", kPrefix, module, suffix), tensor.dtype, tensor.shape});
    data.push_back(tensor.bytes);
  };
  for (const PeftPair& pair : pairs) {
    add(pair.module, kSuffixA, pair.lora_a);
    add(pair.module, kSuffixB, pair.lora_b);
  }
  SafetensorsWriter writer(folder / kWeightsFile, specs);
  for (size_t i = 0; i < specs.size(); ++i) writer.append(specs[i].name, data[i]);
  writer.finish();
  write_file_atomically(folder / kConfigFile, peft_config_to_json(config).dump(2) + "\n");
}

}  // namespace potstill
