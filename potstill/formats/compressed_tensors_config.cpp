// CompressedTensorsConfig <-> the object under "quantization_config".
#include <fmt/format.h>

#include <algorithm>
#include <regex>
#include <string>
#include <utility>

#include "potstill/base/error.h"
#include "potstill/formats/compressed_tensors.h"

namespace potstill {
namespace {

// The version whose fields we write.
constexpr std::string_view kFormatVersion = "0.20.0";
constexpr std::string_view kSupported =
    "supported: compressed-tensors with integer weights of 4 or 8 bits, format "
    "pack-quantized, strategy group or channel, no quantized activations";

[[noreturn]] void unsupported(std::string_view where, std::string_view key, const nlohmann::json& value) {
  throw Error(ErrorKind::kInput, where, fmt::format("quantization_config '{}' is {}", key, value.dump()), kSupported);
}

nlohmann::json value_of(const nlohmann::json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() ? nlohmann::json(nullptr) : *found;
}

nlohmann::ordered_json group_to_json(const std::vector<std::string>& targets, int64_t bits, int64_t group_size,
                                     const CompressedTensorsConfig& config) {
  nlohmann::ordered_json weights = {{"num_bits", bits},
                                    {"type", "int"},
                                    {"symmetric", config.symmetric},
                                    {"strategy", group_size > 0 ? "group" : "channel"},
                                    {"group_size", nullptr},
                                    {"dynamic", false},
                                    {"actorder", nullptr},
                                    {"observer", "minmax"}};
  if (group_size > 0) weights["group_size"] = group_size;
  if (!config.actorder.empty()) weights["actorder"] = config.actorder;
  return {{"targets", targets},
          {"weights", weights},
          {"input_activations", nullptr},
          {"output_activations", nullptr},
          {"format", "pack-quantized"}};
}

// One config group: what it targets, and into `config` what holds for the model (the first group says, the others
// agree).
CompressedTensorsOverride group_from_json(const nlohmann::json& group, std::string_view where, bool first,
                                          CompressedTensorsConfig& config) {
  const auto require = [&](const nlohmann::json& object, const char* key, const nlohmann::json& wanted) {
    if (const auto value = value_of(object, key); value != wanted) unsupported(where, key, value);
  };
  CompressedTensorsOverride read;
  const auto targets = value_of(group, "targets");
  if (!targets.is_array() || targets.empty()) unsupported(where, "targets", targets);
  for (const auto& target : targets) {
    if (!target.is_string()) unsupported(where, "targets", targets);
    read.targets.push_back(target.get<std::string>());
    if (!read.targets.back().starts_with("re:")) continue;
    try {
      static_cast<void>(std::regex(read.targets.back().substr(3)));
    } catch (const std::regex_error&) {
      unsupported(where, "targets", target);
    }
  }
  require(group, "input_activations", nullptr);
  require(group, "output_activations", nullptr);
  const auto weights = value_of(group, "weights");
  const auto bits = value_of(weights, "num_bits");
  if (bits != 4 && bits != 8) unsupported(where, "num_bits", bits);
  read.bits = bits.get<int64_t>();
  require(weights, "type", "int");
  if (value_of(weights, "dynamic") == true) unsupported(where, "dynamic", true);
  bool symmetric = true;
  if (const auto stated = value_of(weights, "symmetric"); stated.is_boolean()) {
    symmetric = stated.get<bool>();
  } else if (!stated.is_null()) {
    unsupported(where, "symmetric", stated);
  }
  if (!first && symmetric != config.symmetric) unsupported(where, "symmetric", symmetric);
  config.symmetric = symmetric;
  const auto strategy = value_of(weights, "strategy"), group_size = value_of(weights, "group_size");
  if (strategy == "group") {
    const bool valid =
        group_size.is_number_integer() && group_size.get<int64_t>() >= 1 && group_size.get<int64_t>() <= (1 << 24);
    if (!valid) unsupported(where, "group_size", group_size);
    read.group_size = group_size.get<int64_t>();
  } else if (strategy != "channel") {
    unsupported(where, "strategy", strategy);
  }
  if (const auto order = value_of(weights, "actorder"); order.is_string()) {
    config.actorder = order.get<std::string>();
  } else if (!order.is_null()) {
    unsupported(where, "actorder", order);
  }
  return read;
}

}  // namespace

bool CompressedTensorsOverride::matches(const std::string& module) const {
  return std::ranges::any_of(targets, [&](const std::string& target) {
    if (!target.starts_with("re:")) return target == module;
    // re.match: from the start, not to the end
    return std::regex_search(module, std::regex(target.substr(3)), std::regex_constants::match_continuous);
  });
}

std::pair<int64_t, int64_t> CompressedTensorsConfig::bits_and_group(const std::string& module) const {
  for (const auto& other : overrides) {
    if (other.matches(module)) return {other.bits, other.group_size};
  }
  return {bits, group_size};
}

nlohmann::ordered_json compressed_tensors_config_to_json(const CompressedTensorsConfig& config) {
  nlohmann::ordered_json json = {{"quant_method", "compressed-tensors"},
                                 {"version", kFormatVersion},
                                 {"format", "pack-quantized"},
                                 {"quantization_status", "compressed"},
                                 {"global_compression_ratio", nullptr},
                                 {"kv_cache_scheme", nullptr},
                                 {"ignore", config.ignore},
                                 {"sparsity_config", nlohmann::ordered_json::object()},
                                 {"transform_config", nlohmann::ordered_json::object()}};
  size_t number = 0;
  const auto add = [&](nlohmann::ordered_json group) {
    json["config_groups"][fmt::format("group_{}", number++)] = std::move(group);
  };
  add(group_to_json({"Linear"}, config.bits, config.group_size, config));
  for (const auto& other : config.overrides) add(group_to_json(other.targets, other.bits, other.group_size, config));
  return json;
}

CompressedTensorsConfig compressed_tensors_config_from_json(const nlohmann::json& json, std::string_view where) {
  const auto require = [&](const nlohmann::json& object, const char* key, const nlohmann::json& wanted) {
    if (const auto value = value_of(object, key); value != wanted) unsupported(where, key, value);
  };
  require(json, "quant_method", "compressed-tensors");
  require(json, "format", "pack-quantized");
  for (const char* key : {"kv_cache_scheme", "sparsity_config", "transform_config"}) {
    const auto value = value_of(json, key);
    if (!value.is_null() && !value.empty()) unsupported(where, key, value);
  }
  const auto groups = value_of(json, "config_groups");
  if (!groups.is_object() || groups.empty()) unsupported(where, "config_groups", groups);
  CompressedTensorsConfig config;
  config.ignore.clear();
  bool first = true, has_base = false;
  for (const auto& group : groups) {
    auto read = group_from_json(group, where, first, config);
    first = false;
    if (read.targets != std::vector<std::string>{"Linear"}) {
      config.overrides.push_back(std::move(read));
      continue;
    }
    if (has_base) unsupported(where, "config_groups", groups);
    has_base = true;
    config.bits = read.bits;
    config.group_size = read.group_size;
  }
  if (!has_base) {  // every linear is named: the first group is what the model is said to be
    config.bits = config.overrides.front().bits;
    config.group_size = config.overrides.front().group_size;
  }
  const auto ignore = value_of(json, "ignore");
  if (!ignore.is_null() && !ignore.is_array()) unsupported(where, "ignore", ignore);
  for (const auto& name : ignore) {
    if (!name.is_string()) unsupported(where, "ignore", ignore);
    config.ignore.push_back(name.get<std::string>());
  }
  return config;
}

}  // namespace potstill
