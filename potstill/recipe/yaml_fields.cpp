#include "potstill/recipe/yaml_fields.h"

#include <fmt/ranges.h>

namespace potstill {

std::string yaml_where(std::string_view file, const YAML::Node& node) {
  const YAML::Mark mark = node.Mark();
  return mark.is_null() ? std::string(file) : fmt::format("{}:{}", file, mark.line + 1);
}

void refuse_unknown_keys(const YAML::Node& node, const std::vector<std::string>& known, std::string_view file,
                         std::string_view section) {
  for (const auto& item : node) {
    const auto key = item.first.as<std::string>();
    if (std::ranges::find(known, key) != known.end()) continue;
    const std::string near = nearest_name(key, known);
    throw Error(
        ErrorKind::kUsage, yaml_where(file, item.first), fmt::format("[{}] unknown key '{}'", section, key),
        near.empty() ? fmt::format("known keys: {}", fmt::join(known, ", ")) : fmt::format("did you mean '{}'?", near));
  }
}

}  // namespace potstill
