#include "potstill/eval/task.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"

namespace potstill {
namespace {

const nlohmann::ordered_json& field_of(const Row& row, std::string_view field) {
  const nlohmann::ordered_json* value = &row.doc;
  std::string_view rest = field;
  while (true) {
    const size_t dot = rest.find('.');
    const std::string key(rest.substr(0, dot));
    if (!value->is_object() || !value->contains(key)) {
      throw Error(ErrorKind::kInput, row.where, fmt::format("the row has no field '{}'", field),
                  "rows need the field names of the data set on the Hugging Face Hub");
    }
    value = &(*value)[key];
    if (dot == std::string_view::npos) return *value;
    rest.remove_prefix(dot + 1);
  }
}

[[noreturn]] void refuse_field(const Row& row, std::string_view field, std::string_view wanted) {
  throw Error(ErrorKind::kInput, row.where, fmt::format("field '{}' must be {}", field, wanted));
}

}  // namespace

std::string Row::text(std::string_view field) const {
  const auto& value = field_of(*this, field);
  if (!value.is_string()) refuse_field(*this, field, "a text");
  return value.get<std::string>();
}

std::vector<std::string> Row::texts(std::string_view field) const {
  const auto& value = field_of(*this, field);
  const auto is_text = [](const auto& item) { return item.is_string(); };
  if (!value.is_array() || value.empty() || !std::ranges::all_of(value, is_text)) {
    refuse_field(*this, field, "a list of texts");
  }
  return value.get<std::vector<std::string>>();
}

int64_t Row::integer(std::string_view field) const {
  const auto& value = field_of(*this, field);
  if (value.is_number_integer()) return value.get<int64_t>();
  if (value.is_string()) {
    const auto text = value.get<std::string>();
    int64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error == std::errc() && end == text.data() + text.size()) return number;
  }
  refuse_field(*this, field, "a whole number");
}

std::string Row::shown(std::string_view field) const {
  const auto& value = field_of(*this, field);
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number() || value.is_boolean()) return value.dump();
  refuse_field(*this, field, "a text or a number");
}

std::vector<Row> read_rows(const std::filesystem::path& path) {
  const std::string bytes = read_file(path);
  std::vector<Row> rows;
  int64_t line = 0;
  for (size_t begin = 0; begin < bytes.size();) {
    const size_t end = std::min(bytes.find('\n', begin), bytes.size());
    const std::string_view text(bytes.data() + begin, end - begin);
    begin = end + 1;
    ++line;
    if (text.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    Row row{.doc = nlohmann::ordered_json::parse(text, nullptr, /*allow_exceptions=*/false),
            .where = fmt::format("{}:{}", path.string(), line)};
    if (!row.doc.is_object()) throw Error(ErrorKind::kFormat, row.where, "the line is not a JSON object");
    rows.push_back(std::move(row));
  }
  if (rows.empty()) throw Error(ErrorKind::kInput, path.string(), "holds no rows");
  return rows;
}

std::vector<ScoreRequest> Question::requests() const {
  std::vector<ScoreRequest> requests;
  for (size_t i = 0; i < contexts.size(); ++i) {
    requests.push_back({.context = description + contexts[i], .continuation = delimiter + continuations[i]});
  }
  return requests;
}

std::string Question::example() const {
  const auto shown = static_cast<size_t>(gold);
  return continuations[shown].empty() ? contexts[shown] : contexts[shown] + delimiter + continuations[shown];
}

Question plain_question(const Row& row, std::string context, std::vector<std::string> choices, int64_t gold) {
  if (gold < 0 || gold >= static_cast<int64_t>(choices.size())) {
    throw Error(ErrorKind::kInput, row.where,
                fmt::format("the answer is choice {} of {} (from 0)", gold, choices.size()));
  }
  Question question;
  question.contexts.assign(choices.size(), std::move(context));
  question.continuations = choices;
  question.choices = std::move(choices);
  question.gold = gold;
  question.doc = row.doc;
  question.target = gold;
  return question;
}

Question lettered_question(const Row& row, std::string_view question, const std::vector<std::string>& options,
                           int64_t gold) {
  std::string context(question);
  std::vector<std::string> letters;
  for (const auto& option : options) {
    letters.emplace_back(1, static_cast<char>('A' + letters.size()));
    context += fmt::format("\n{}. {}", letters.back(), option);
  }
  return plain_question(row, context + "\nAnswer:", std::move(letters), gold);
}

int64_t label_index(const Row& row, const std::vector<std::string>& labels, const std::string& answer) {
  const auto at = std::ranges::find(labels, answer);
  if (at == labels.end()) {
    throw Error(ErrorKind::kInput, row.where, fmt::format("the answer '{}' is none of the row's labels", answer));
  }
  return at - labels.begin();
}

namespace {

// The subjects of "mmlu_stem" or, alone, of "mmlu_anatomy"; none when MMLU has no such part.
std::vector<std::string> mmlu_subjects(std::string_view name) {
  for (const auto& group : mmlu_groups()) {
    if (group.name == "mmlu") continue;
    if (group.name == name) return group.children;
    if (std::ranges::find(group.children, name) != group.children.end()) return {std::string(name)};
  }
  return {};
}

}  // namespace

EvalTask find_task(std::string_view name) {
  const std::vector<EvalTask> tasks{arc_easy_task(),   commonsense_qa_task(), hellaswag_task(),  mmlu_task(),
                                    openbookqa_task(), piqa_task(),           social_iqa_task(), winogrande_task()};
  std::vector<std::string> names;
  for (const auto& task : tasks) {
    if (task.name == name || task.folder == name) return task;
    names.push_back(task.folder);
  }
  if (auto subjects = mmlu_subjects(name); !subjects.empty()) {
    EvalTask part = mmlu_task();
    part.name = name;
    part.only_subtasks = std::move(subjects);
    return part;
  }
  for (const auto& group : mmlu_groups()) {
    names.push_back(group.name);
    if (group.name != "mmlu") names.insert(names.end(), group.children.begin(), group.children.end());
  }
  const std::string near = nearest_name(name, names);
  names.resize(tasks.size());
  throw Error(
      ErrorKind::kUsage, "--tasks", fmt::format("unknown task '{}'", name),
      near.empty() ? fmt::format("known: {}", fmt::join(names, ", ")) : fmt::format("did you mean '{}'?", near));
}

}  // namespace potstill
