#include "potstill/recipe/recipe.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>

#include "potstill/base/error.h"
#include "potstill/recipe/yaml_fields.h"

namespace potstill {
namespace {

constexpr const char* kSections[] = {"prune", "synth", "teach",    "data",   "search",
                                     "train", "merge", "quantize", "export", "evaluate"};

YAML::Node parse(const std::filesystem::path& file) {
  try {
    return YAML::LoadFile(file.string());
  } catch (const YAML::BadFile&) {
    throw Error(ErrorKind::kIo, file.string(), "cannot be read", "check the path of the recipe");
  } catch (const YAML::ParserException& error) {
    throw Error(ErrorKind::kUsage, fmt::format("{}:{}", file.string(), error.mark.line + 1),
                fmt::format("is not valid YAML: {}", error.msg));
  }
}

// "train.lr=1e-3" put into the tree as if the file said it.
void apply_override(YAML::Node& root, const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    throw Error(ErrorKind::kUsage, fmt::format("--set {}", text), "is not key=value",
                "for example --set train.lr=0.01 or --set seed=2");
  }
  const std::string key = text.substr(0, equals);
  YAML::Node value;
  try {
    value = YAML::Load(text.substr(equals + 1));
  } catch (const YAML::ParserException&) {
    value = YAML::Node(text.substr(equals + 1));
  }
  const size_t dot = key.find('.');
  if (dot == std::string::npos) {
    root[key] = value;
  } else {
    root[key.substr(0, dot)][key.substr(dot + 1)] = value;
  }
}

// The top level holds the RecipeConfig's keys and the sections; read_section refuses what it does not know.
YAML::Node top_level_only(const YAML::Node& root) {
  YAML::Node top(YAML::NodeType::Map);
  for (const auto& item : root) {
    const auto key = item.first.as<std::string>();
    if (std::ranges::find(kSections, key) == std::end(kSections)) top.force_insert(item.first, item.second);
  }
  return top;
}

void refuse_unknown_top_level(const YAML::Node& root, const std::string& file) {
  std::vector<std::string> known(std::begin(kSections), std::end(kSections));
  const auto top = config_to_json(RecipeConfig{});  // named: items() borrows from it
  for (const auto& [name, value] : top.items()) known.push_back(name);
  refuse_unknown_keys(root, known, file, "recipe");
}

template <class Config>
void read_optional_section(const YAML::Node& root, const char* name, const std::string& file,
                           std::optional<Config>& config) {
  if (!root[name].IsDefined()) return;
  config.emplace();
  read_section(root[name], file, name, *config);
}

void require(const std::string& value, const char* key, const std::string& file) {
  if (value.empty()) {
    throw Error(ErrorKind::kUsage, file, fmt::format("'{}' is missing", key),
                fmt::format("add a line '{}: …'; recipes/quickstart.yaml is an example", key));
  }
}

}  // namespace

std::filesystem::path Recipe::resolve(const std::string& path) const {
  if (path.empty() || std::filesystem::exists(path)) return path;
  const std::filesystem::path beside = file.parent_path() / path;
  return std::filesystem::exists(beside) ? beside : std::filesystem::path(path);
}

Recipe load_recipe(const std::filesystem::path& file, const std::vector<std::string>& overrides) {
  YAML::Node root = parse(file);
  const std::string name = file.string();
  if (!root.IsMap()) throw Error(ErrorKind::kUsage, name, "is empty or holds no 'key: value' lines");
  for (const auto& text : overrides) apply_override(root, text);
  refuse_unknown_top_level(root, name);

  Recipe recipe;
  recipe.file = file;
  read_section(top_level_only(root), name, "recipe", recipe.top);
  read_optional_section(root, "prune", name, recipe.prune);
  read_section(root["synth"], name, "synth", recipe.synth);
  read_section(root["teach"], name, "teach", recipe.teach);
  read_section(root["data"], name, "data", recipe.data);
  read_optional_section(root, "search", name, recipe.search);
  read_section(root["train"], name, "train", recipe.train);
  read_section(root["merge"], name, "merge", recipe.merge);
  read_section(root["quantize"], name, "quantize", recipe.quantize);
  read_section(root["export"], name, "export", recipe.export_);
  read_section(root["evaluate"], name, "evaluate", recipe.evaluate);

  if (recipe.top.name.empty()) recipe.top.name = file.stem().string();
  if (recipe.top.pairs.empty()) require(recipe.top.task, "task", name);
  require(recipe.top.teacher, "teacher", name);
  require(recipe.top.student, "student", name);
  if (recipe.top.data_teacher.empty()) recipe.top.data_teacher = recipe.top.teacher;
  return recipe;
}

}  // namespace potstill
