// CompressedTensorsConfig <-> the object under "quantization_config".
#include <fmt/format.h>

#include <string>

#include "potstill/base/error.h"
#include "potstill/formats/compressed_tensors.h"

namespace potstill {
namespace {

// The version whose fields we write.
constexpr std::string_view kFormatVersion = "0.20.0";
constexpr std::string_view kSupported =
    "supported: compressed-tensors with 4-bit integer weights, format "
    "pack-quantized, strategy group or channel, no quantized activations";

[[noreturn]] void unsupported(std::string_view where, std::string_view key, const nlohmann::json& value) {
  throw Error(ErrorKind::kInput, where, fmt::format("quantization_config '{}' is {}", key, value.dump()), kSupported);
}

nlohmann::json value_of(const nlohmann::json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() ? nlohmann::json(nullptr) : *found;
}

}  // namespace

nlohmann::ordered_json compressed_tensors_config_to_json(const CompressedTensorsConfig& config) {
  nlohmann::ordered_json weights = {{"num_bits", 4},
                                    {"type", "int"},
                                    {"symmetric", config.symmetric},
                                    {"strategy", config.group_size > 0 ? "group" : "channel"},
                                    {"group_size", nullptr},
                                    {"dynamic", false},
                                    {"actorder", nullptr},
                                    {"observer", "minmax"}};
  if (config.group_size > 0) weights["group_size"] = config.group_size;
  if (!config.actorder.empty()) weights["actorder"] = config.actorder;
  const nlohmann::ordered_json group = {{"targets", nlohmann::ordered_json::array({"Linear"})},
                                        {"weights", weights},
                                        {"input_activations", nullptr},
                                        {"output_activations", nullptr},
                                        {"format", "pack-quantized"}};
  nlohmann::ordered_json json = {{"quant_method", "compressed-tensors"},
                                 {"version", kFormatVersion},
                                 {"format", "pack-quantized"},
                                 {"quantization_status", "compressed"},
                                 {"global_compression_ratio", nullptr},
                                 {"kv_cache_scheme", nullptr},
                                 {"ignore", config.ignore},
                                 {"sparsity_config", nlohmann::ordered_json::object()},
                                 {"transform_config", nlohmann::ordered_json::object()}};
  json["config_groups"]["group_0"] = group;
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
  if (!groups.is_object() || groups.size() != 1) unsupported(where, "config_groups", groups);
  const nlohmann::json& group = groups.begin().value();
  require(group, "targets", nlohmann::json::array({"Linear"}));
  require(group, "input_activations", nullptr);
  require(group, "output_activations", nullptr);
  const auto weights = value_of(group, "weights");
  require(weights, "num_bits", 4);
  require(weights, "type", "int");
  if (value_of(weights, "dynamic") == true) unsupported(where, "dynamic", true);

  CompressedTensorsConfig config;
  config.ignore.clear();
  if (const auto symmetric = value_of(weights, "symmetric"); symmetric.is_boolean()) {
    config.symmetric = symmetric.get<bool>();
  } else if (!symmetric.is_null()) {
    unsupported(where, "symmetric", symmetric);
  }
  const auto strategy = value_of(weights, "strategy"), group_size = value_of(weights, "group_size");
  if (strategy == "group") {
    const bool valid =
        group_size.is_number_integer() && group_size.get<int64_t>() >= 1 && group_size.get<int64_t>() <= (1 << 24);
    if (!valid) unsupported(where, "group_size", group_size);
    config.group_size = group_size.get<int64_t>();
  } else if (strategy != "channel") {
    unsupported(where, "strategy", strategy);
  }
  if (const auto order = value_of(weights, "actorder"); order.is_string()) {
    config.actorder = order.get<std::string>();
  } else if (!order.is_null()) {
    unsupported(where, "actorder", order);
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
