// Fields of a config struct, declared once: the recipe reader, the command line's flags and artifact.json all walk
// them.
//
//   struct MergeConfig {
//     std::string dtype = "auto";
//     int64_t max_shard_mb = 5000;
//     template <class Self, class Visitor>
//     static void fields(Self& self, Visitor& visit) {
//       visit("dtype", self.dtype, "dtype of the merged weights", one_of({"auto", "fp32", "bf16", "fp16"}));
//       visit("max_shard_mb", self.max_shard_mb, "largest safetensors shard in MB", in_range(1, 1e6));
//     }
//   };
//
// The name is the recipe's key; the flag is the same with '-' for '_' ("--max-shard-mb"). Types: bool, int64_t, double,
// std::string, std::vector<std::string>, std::vector<int64_t>, std::vector<double>, std::filesystem::path.
#pragma once

#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <type_traits>
#include <vector>

#include "potstill/base/error.h"

namespace potstill {

struct FieldLimits {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  std::vector<std::string> choices;  // empty = any
};

inline FieldLimits any() { return {}; }
inline FieldLimits in_range(double min, double max) { return {.min = min, .max = max, .choices = {}}; }
inline FieldLimits at_least(double min) { return {.min = min, .choices = {}}; }
inline FieldLimits one_of(std::vector<std::string> choices) { return {.choices = std::move(choices)}; }

// Throws Error(kUsage) "<where>: '<name>' is 7 but must be in [0, 1]", or with the nearest choice.
void check_field(std::string_view where, std::string_view name, double value, const FieldLimits& limits);
void check_field(std::string_view where, std::string_view name, const std::string& value, const FieldLimits& limits);

namespace fields_internal {

struct ToJson {
  nlohmann::ordered_json object = nlohmann::ordered_json::object();
  template <class T>
  void operator()(const char* name, const T& value, const char*, const FieldLimits&) {
    if constexpr (std::is_same_v<T, std::filesystem::path>) {
      object[name] = value.string();
    } else {
      object[name] = value;
    }
  }
};

struct Check {
  std::string_view where;
  template <class T>
  void operator()(const char* name, const T& value, const char*, const FieldLimits& limits) {
    if constexpr (std::is_same_v<T, std::string>) {
      check_field(where, name, value, limits);
    } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
      for (const auto& item : value) check_field(where, name, item, limits);
    } else if constexpr (std::is_arithmetic_v<T> && !std::is_same_v<T, bool>) {
      check_field(where, name, static_cast<double>(value), limits);
    } else if constexpr (std::is_same_v<T, std::vector<int64_t>> || std::is_same_v<T, std::vector<double>>) {
      for (const auto item : value) check_field(where, name, static_cast<double>(item), limits);
    }
  }
};

}  // namespace fields_internal

// The config as a JSON object in declaration order: what artifact.json records and what a stage's key is hashed from.
template <class Config>
nlohmann::ordered_json config_to_json(const Config& config) {
  fields_internal::ToJson visitor;
  Config::fields(config, visitor);
  return visitor.object;
}

// Throws Error(kUsage) for the first field outside its limits.
template <class Config>
void check_config(const Config& config, std::string_view where) {
  fields_internal::Check visitor{where};
  Config::fields(config, visitor);
}

}  // namespace potstill
