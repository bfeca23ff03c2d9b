#include "potstill/recipe/task_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <regex>
#include <set>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/recipe/yaml_fields.h"
#include "potstill/synth/template_config.h"

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

void check_seeds(const Task& task, const YAML::Node& root, std::string_view file) {
  require(!task.seeds.empty() || !task.seed_rows.question.empty() || !task.seed_rows.context.empty(), root, file,
          "the task has no 'seeds'", "write three or more: {topic: …, question: …, answer: …}");
  bool facts = false, facts_in_seeds = false;
  for (size_t i = 0; i < task.seeds.size(); ++i) {
    const auto& seed = task.seeds[i];
    const YAML::Node node = root["seeds"][i];
    const bool asks = !task.writes_question() || !seed.question.empty();
    require(asks && !seed.answer.empty() && !seed.topic.empty(), node, file,
            fmt::format("seed {} needs a topic, a question and an answer", i + 1));
    require(!task.writes_context() || !seed.context.empty(), node, file, fmt::format("seed {} needs a context", i + 1));
    const auto wrong = static_cast<size_t>(task.options_of_a_pair() - 1);
    require(!task.writes_wrong() || seed.wrong.size() == wrong, node, file,
            fmt::format("seed {} has {} wrong options, must be {}", i + 1, seed.wrong.size(), wrong));
    require(task.choices.empty() || std::ranges::find(task.choices, seed.answer) != task.choices.end(), node, file,
            fmt::format("seed {}: '{}' is none of the choices", i + 1, seed.answer));
    facts_in_seeds |= !seed.fact.empty();
  }
  for (size_t i = 0; i < task.subtopics.size(); ++i) {
    require(!task.subtopics[i].name.empty(), root["subtopics"][i], file, fmt::format("subtopic {} has no name", i + 1));
    facts |= !task.subtopics[i].facts.empty();
  }
  require(!facts || facts_in_seeds, root["seeds"], file, "subtopics have facts but no seed has one",
          "give the seeds a 'fact', so that the teacher sees how a question is made from it");
}

void check_rubric(const Task& task, const YAML::Node& root, std::string_view file) {
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
    } else if (criterion.measure != "blind") {
      require(criterion.worst < criterion.best, node, file,
              fmt::format("criterion '{}': worst {:g} must be less than best {:g}", criterion.name, criterion.worst,
                          criterion.best));
    }
  }
}

void check_form(const Task& task, const YAML::Node& root, std::string_view file) {
  const auto options = task.options_of_a_pair();
  require(task.has_options() || (task.num_options == 0 && task.choices.empty()), root, file,
          "answer_form open has no options or choices", "multiple_choice, completion and binary have");
  require(!task.has_options() || options >= 2, root, file, fmt::format("{} options are no choice", options));
  require(task.answer_form != "binary" || options == 2, root, file,
          fmt::format("answer_form binary has two options, not {}", options));
  require(task.choices.empty() || task.num_options == 0 || task.num_options == options, root, file,
          fmt::format("options is {} but there are {} choices", task.num_options, task.choices.size()));
  const std::set<std::string> unique(task.choices.begin(), task.choices.end());
  require(unique.size() == task.choices.size(), root["choices"], file, "two choices are the same");
  const bool writes_text = task.writes_context() || task.writes_question() || task.writes_answer();
  require(writes_text, root, file, "the teacher has nothing to write",
          "give context_instruction, or leave 'question' out");
  for (const auto& [key, text] : {std::pair("instruction", &task.instruction), std::pair("input", &task.input),
                                  std::pair("output", &task.output)}) {
    const auto unknown = unknown_template_name(*text);
    require(unknown.empty(), root[key].IsDefined() ? root[key] : root, file,
            fmt::format("'{}' names {{{}}}, which is no part of a pair", key, unknown),
            "question, context, answer, letter, number, options, A to Z, subtopic, subject, fact, before, after");
  }
  for (const auto& phrase : task.forbidden) {
    if (phrase.size() <= 2 || !phrase.starts_with('/') || !phrase.ends_with('/')) continue;
    try {
      const std::regex expression(phrase.substr(1, phrase.size() - 2));
    } catch (const std::regex_error& error) {
      require(false, root["forbidden"], file, fmt::format("'{}' is no regular expression: {}", phrase, error.what()));
    }
  }
}

void check_task(const Task& task, const YAML::Node& root, std::string_view file) {
  require(!task.name.empty(), root, file, "the task has no 'name'");
  require(!task.description.empty(), root, file, "the task has no 'description'",
          "say in a few words what it is about");
  check_form(task, root, file);
  check_seeds(task, root, file);
  check_rubric(task, root, file);
  const auto& filter = task.filter;
  require(filter.min_question_words <= filter.max_question_words &&
              filter.min_answer_words <= filter.max_answer_words &&
              filter.min_context_words <= filter.max_context_words,
          root["filter"], file, "the least number of words is above the most");
}

// Folders where tasks are looked for by their names.
std::vector<fs::path> task_folders(const fs::path& recipe_folder) {
  std::vector<fs::path> folders;
  if (!recipe_folder.empty()) folders = {recipe_folder, recipe_folder / "tasks"};
  folders.push_back(fs::path("recipes") / "tasks");
  // Beside the binary: bin/../share when installed, <source>/build/<preset> in a build tree.
  std::error_code error;
  const fs::path binary = fs::read_symlink("/proc/self/exe", error).parent_path();
  if (!error) {
    folders.push_back(binary / "../share/potstill/tasks");
    folders.push_back(binary / "../../recipes/tasks");
  }
  return folders;
}

std::string known_tasks(const std::vector<fs::path>& folders) {
  std::set<std::string> names;
  for (const auto& folder : folders) {
    if (folder.filename() != "tasks" || !fs::is_directory(folder)) continue;
    for (const auto& entry : fs::directory_iterator(folder)) {
      if (entry.path().extension() == ".yaml") names.insert(entry.path().stem().string());
    }
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

fs::path look_for_task(const fs::path& named, const fs::path& recipe_folder, std::vector<std::string>& looked) {
  const fs::path file = named.has_extension() ? named : fs::path(named.string() + ".yaml");
  std::vector<fs::path> places{named};
  if (!named.is_absolute()) {
    for (const auto& folder : task_folders(recipe_folder)) places.push_back(folder / file);
  }
  for (const auto& place : places) {
    if (fs::is_regular_file(place)) return place;
    looked.push_back(place.string());
  }
  return {};
}

}  // namespace

Task read_task(const fs::path& path) {
  const YAML::Node root = load_yaml(path);
  const std::string file = path.string();
  if (!root.IsMap()) throw Error(ErrorKind::kUsage, file, "a task file holds 'key: value' lines");
  Task task;
  recipe_internal::ReadFields plain{root, file, "task", {}};
  Task::fields(task, plain);
  plain.known.insert(plain.known.end(), {"seeds", "seed_rows", "subtopics", "rubric", "filter"});
  refuse_unknown_keys(root, plain.known, file, "task");
  task.seeds = read_list<TaskSeed>(root, "seeds", file);
  read_section(root["seed_rows"], file, "seed_rows", task.seed_rows);
  task.subtopics = read_list<Subtopic>(root, "subtopics", file, &Subtopic::name);
  task.rubric = read_list<Criterion>(root, "rubric", file);
  read_section(root["filter"], file, "filter", task.filter);
  check_task(task, root, file);
  return task;
}

Task read_task(const fs::path& path, const SynthConfig& config, uint64_t seed) {
  Task task = read_task(path);
  fs::path rows = config.seeds;
  if (rows.empty() && !task.seed_rows.file.empty()) rows = path.parent_path() / task.seed_rows.file;
  if (!rows.empty()) {
    const bool has_fields = !task.seed_rows.question.empty() || !task.seed_rows.context.empty();
    if (!has_fields) {
      throw Error(ErrorKind::kUsage, path.string(), "has no 'seed_rows' that say which fields of a row are what",
                  "for example seed_rows: {question: question, answer: answer}");
    }
    task.seeds = read_seed_rows(rows, task, seed);  // in place of the file's own examples
  }
  if (task.seeds.empty()) {
    throw Error(ErrorKind::kUsage, path.string(), "has no seeds of its own, and --seeds names no rows",
                "--seeds FILE.jsonl");
  }
  if (!config.subject.empty()) {
    task.subject = config.subject;
    std::ranges::replace(task.subject, '_', ' ');
    task.description = fmt::format("{}, at the level of an exam", task.subject);
    task.subtopics.clear();
  }
  if (!config.documents.empty()) {
    task.given_contexts = !task.context_instruction.empty();
    task.subtopics.clear();
    const bool seeds_fit = std::ranges::any_of(
        task.seeds, [&](const TaskSeed& each) { return !(task.given_contexts ? each.context : each.fact).empty(); });
    if (!seeds_fit) {
      throw Error(ErrorKind::kUsage, path.string(), "its seeds rest on no fact, and --documents gives passages",
                  "give the seeds a 'fact', or take the task 'documents'");
    }
  }
  return task;
}

fs::path find_task(const fs::path& named, const fs::path& recipe_folder) {
  std::vector<std::string> looked;
  if (const fs::path found = look_for_task(named, recipe_folder, looked); !found.empty()) return found;
  throw Error(ErrorKind::kIo, named.string(), fmt::format("no such task; looked for {}", fmt::join(looked, ", ")),
              fmt::format("give a YAML file, or one of: {}", known_tasks(task_folders(recipe_folder))));
}

fs::path find_task(const fs::path& named, const fs::path& recipe_folder, SynthConfig& config) {
  std::vector<std::string> looked;
  constexpr std::string_view kSubjects = "mmlu_";
  const std::string name = named.string();
  if (look_for_task(named, recipe_folder, looked).empty() && name.starts_with(kSubjects) && !named.has_extension()) {
    config.subject = name.substr(kSubjects.size());
    return find_task("mmlu", recipe_folder);
  }
  return find_task(named, recipe_folder);
}

}  // namespace potstill
