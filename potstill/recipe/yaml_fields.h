// YAML -> config structs by their declared fields (base/fields.h). Every complaint names file, line and section; an
// unknown key is an error with the nearest known one.
#pragma once

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "potstill/base/error.h"
#include "potstill/base/fields.h"

namespace potstill {

// "recipe.yaml:14" for a node read from a file; a node given by --set has no line of its own.
std::string yaml_where(std::string_view file, const YAML::Node& node);

namespace recipe_internal {

template <class T>
std::string_view type_in_words() {
  if constexpr (std::is_same_v<T, bool>) return "true or false";
  if constexpr (std::is_same_v<T, int64_t>) return "a whole number";
  if constexpr (std::is_same_v<T, double>) return "a number";
  if constexpr (std::is_same_v<T, std::string> || std::is_same_v<T, std::filesystem::path>) return "a text";
  return "a list";
}

struct ReadFields {
  const YAML::Node& node;
  std::string_view file, section;
  std::vector<std::string> known;

  template <class T>
  void operator()(const char* name, T& value, const char*, const FieldLimits& limits) {
    known.emplace_back(name);
    const YAML::Node item = node[name];
    if (!item.IsDefined() || item.IsNull()) return;
    const std::string where = fmt::format("{}: [{}]", yaml_where(file, item), section);
    try {
      if constexpr (std::is_same_v<T, std::filesystem::path>) {
        value = item.template as<std::string>();
      } else {
        value = item.template as<T>();
      }
    } catch (const YAML::Exception&) {
      throw Error(ErrorKind::kUsage, where,
                  fmt::format("'{}' is {} but must be {}", name, YAML::Dump(item), type_in_words<T>()));
    }
    fields_internal::Check check{where};
    check(name, value, "", limits);
  }
};

}  // namespace recipe_internal

// Throws Error(kUsage) for a key of `node` that is not in `known`.
void refuse_unknown_keys(const YAML::Node& node, const std::vector<std::string>& known, std::string_view file,
                         std::string_view section);

// Reads the keys of `node` into `config`; absent keys keep their defaults. An undefined or null node reads nothing.
template <class Config>
void read_section(const YAML::Node& node, std::string_view file, std::string_view section, Config& config) {
  if (!node.IsDefined() || node.IsNull()) return;
  if (!node.IsMap()) {
    throw Error(ErrorKind::kUsage, yaml_where(file, node), fmt::format("[{}] must hold 'key: value' lines", section));
  }
  recipe_internal::ReadFields visitor{node, file, section, {}};
  Config::fields(config, visitor);
  refuse_unknown_keys(node, visitor.known, file, section);
}

}  // namespace potstill
