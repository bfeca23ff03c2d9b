#include "potstill/recipe/task_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <yaml-cpp/yaml.h>

#include <set>
#include <string>
#include <vector>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/recipe/yaml_fields.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

YAML::Node load_yaml(const fs::path& path) {
  const std::string text = read_file(path);
  try {
    return YAML::Load(text);
  } catch (const YAML::Exception& error) {
    throw Error(ErrorKind::kUsage, fmt::format("{}:{}", path.string(), error.mark.line + 1),
                fmt::format("is not valid YAML: {}", error.msg));
  }
}

// Each item of a list of maps; an item given as a plain text fills `plain_field` (subtopics: "- evaporation").
template <class Item>
std::vector<Item> read_list(const YAML::Node& root, const char* key, std::string_view file,
                            std::string Item::*plain_field = nullptr) {
  std::vector<Item> items;
  const YAML::Node list = root[key];
  if (!list.IsDefined() || list.IsNull()) return items;
  if (!list.IsSequence()) {
    throw Error(ErrorKind::kUsage, yaml_where(file, list), fmt::format("'{}' must be a list", key));
  }
  for (const auto& node : list) {
    Item item;
    if (node.IsScalar() && plain_field != nullptr) {
      item.*plain_field = node.as<std::string>();
    } else {
      read_section(node, file, key, item);
    }
    items.push_back(std::move(item));
  }
  return items;
}

void require(bool holds, const YAML::Node& node, std::string_view file, const std::string& what,
             std::string_view hint = {}) {
  if (!holds) throw Error(ErrorKind::kUsage, yaml_where(file, node), what, hint);
}

void check_task(const Task& task, const YAML::Node& root, std::string_view file) {
  require(!task.name.empty(), root, file, "the task has no 'name'");
  require(!task.description.empty(), root, file, "the task has no 'description'",
          "say in a few words what it is about");
  require(!task.seeds.empty(), root, file, "the task has no 'seeds'",
          "write three or more: {topic: …, question: …, answer: …}");
  bool facts = false, facts_in_seeds = false;
  for (size_t i = 0; i < task.seeds.size(); ++i) {
    const auto& seed = task.seeds[i];
    require(!seed.question.empty() && !seed.answer.empty() && !seed.topic.empty(), root["seeds"][i], file,
            fmt::format("seed {} needs a topic, a question and an answer", i + 1));
    facts_in_seeds |= !seed.fact.empty();
  }
  for (size_t i = 0; i < task.subtopics.size(); ++i) {
    require(!task.subtopics[i].name.empty(), root["subtopics"][i], file, fmt::format("subtopic {} has no name", i + 1));
    facts |= !task.subtopics[i].facts.empty();
  }
  require(!facts || facts_in_seeds, root["seeds"], file, "subtopics have facts but no seed has one",
          "give the seeds a 'fact', so that the teacher sees how a question is made from it");
  std::set<std::string> names;
  for (size_t i = 0; i < task.rubric.size(); ++i) {
    const auto& criterion = task.rubric[i];
    const YAML::Node node = root["rubric"][i];
    require(!criterion.name.empty() && criterion.name != "score", node, file,
            fmt::format("criterion {} needs a name other than 'score'", i + 1));
    require(names.insert(criterion.name).second, node, file,
            fmt::format("two criteria are named '{}'", criterion.name));
    if (criterion.measure == "rating") {
      require(!criterion.question.empty(), node, file, fmt::format("criterion '{}' has no 'question'", criterion.name));
      require(criterion.anchors.size() == 5, node, file,
              fmt::format("criterion '{}' has {} anchors but needs 5, for the scores 1 to 5", criterion.name,
                          criterion.anchors.size()));
    } else {
      require(criterion.worst < criterion.best, node, file,
              fmt::format("criterion '{}': worst {:g} must be less than best {:g}", criterion.name, criterion.worst,
                          criterion.best));
    }
  }
  const auto& filter = task.filter;
  require(filter.min_question_words <= filter.max_question_words && filter.min_answer_words <= filter.max_answer_words,
          root["filter"], file, "the least number of words is above the most");
}

}  // namespace

Task read_task(const fs::path& path) {
  const YAML::Node root = load_yaml(path);
  const std::string file = path.string();
  if (!root.IsMap()) throw Error(ErrorKind::kUsage, file, "a task file holds 'key: value' lines");
  Task task;
  recipe_internal::ReadFields plain{root, file, "task", {}};
  Task::fields(task, plain);
  plain.known.insert(plain.known.end(), {"seeds", "subtopics", "rubric", "filter"});
  refuse_unknown_keys(root, plain.known, file, "task");
  task.seeds = read_list<TaskSeed>(root, "seeds", file);
  task.subtopics = read_list<Subtopic>(root, "subtopics", file, &Subtopic::name);
  task.rubric = read_list<Criterion>(root, "rubric", file);
  read_section(root["filter"], file, "filter", task.filter);
  check_task(task, root, file);
  return task;
}

fs::path find_task(const fs::path& named, const fs::path& recipe_folder) {
  const fs::path file = named.has_extension() ? named : fs::path(named.string() + ".yaml");
  std::vector<fs::path> places{named};
  if (!named.is_absolute()) {
    if (!recipe_folder.empty()) {
      places.push_back(recipe_folder / file);
      places.push_back(recipe_folder / "tasks" / file);
    }
    places.push_back(fs::path("recipes") / "tasks" / file);
    // Beside the binary: bin/../share when installed, <source>/build/<preset> in a build tree.
    std::error_code error;
    const fs::path binary = fs::read_symlink("/proc/self/exe", error).parent_path();
    if (!error) {
      places.push_back(binary / "../share/potstill/tasks" / file);
      places.push_back(binary / "../../recipes/tasks" / file);
    }
  }
  for (const auto& place : places) {
    if (fs::is_regular_file(place)) return place;
  }
  std::vector<std::string> looked;
  for (const auto& place : places) looked.push_back(place.string());
  throw Error(ErrorKind::kIo, named.string(), fmt::format("no such task; looked for {}", fmt::join(looked, ", ")),
              "give a YAML file, or the name of one in recipes/tasks");
}

}  // namespace potstill
