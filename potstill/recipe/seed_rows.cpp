// Rows of a data set as a task's seeds.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"
#include "potstill/base/rng.h"
#include "potstill/recipe/task_file.h"

namespace potstill {
namespace {

using Json = nlohmann::json;

struct RowReader {
  const std::filesystem::path& file;
  const JsonlRecord& record;

  [[noreturn]] void refuse(std::string_view what) const {
    throw Error(ErrorKind::kInput, fmt::format("{}:{}", file.string(), record.line), what,
                "the task's seed_rows say which fields its rows have");
  }

  const Json& at(std::string_view field) const {
    const Json* value = &record.value;
    for (std::string_view rest = field;;) {
      const size_t dot = rest.find('.');
      const std::string key(rest.substr(0, dot));
      if (!value->is_object() || !value->contains(key)) refuse(fmt::format("the row has no field '{}'", field));
      value = &(*value)[key];
      if (dot == std::string_view::npos) return *value;
      rest.remove_prefix(dot + 1);
    }
  }

  static std::optional<std::string> as_text(const Json& value) {
    if (value.is_string()) return value.get<std::string>();
    if (value.is_number() || value.is_boolean()) return value.dump();
    return std::nullopt;
  }

  std::string text(std::string_view field) const {
    const auto value = as_text(at(field));
    if (!value) refuse(fmt::format("field '{}' is no text", field));
    return *value;
  }

  // "question", or "{context} {question}"
  std::string filled(std::string_view named) const {
    if (named.empty()) return {};
    if (named.find('{') == std::string_view::npos) return text(named);
    std::string result;
    for (std::string_view rest = named; !rest.empty();) {
      const size_t open = rest.find('{'), close = rest.find('}', open == std::string_view::npos ? 0 : open);
      if (open == std::string_view::npos || close == std::string_view::npos) return result + std::string(rest);
      result += rest.substr(0, open);
      result += text(rest.substr(open + 1, close - open - 1));
      rest.remove_prefix(close + 1);
    }
    return result;
  }

  std::vector<std::string> texts(std::string_view field) const {
    const Json& value = at(field);
    if (!value.is_array()) return {text(field)};
    std::vector<std::string> items;
    for (const auto& item : value) {
      const auto each = as_text(item);
      if (!each) refuse(fmt::format("field '{}' holds more than texts", field));
      items.push_back(*each);
    }
    return items;
  }
};

// Place of the right option, by what the answer's field holds.
size_t right_option(const RowReader& row, const SeedRows& rows, const std::vector<std::string>& options) {
  std::string answer = row.text(rows.answer);
  answer.erase(0, answer.find_first_not_of(' '));
  const auto place_in = [&](const std::vector<std::string>& list) {
    const auto found = std::ranges::find(list, answer);
    if (found == list.end()) row.refuse(fmt::format("the answer '{}' is none of the row's options", answer));
    return static_cast<size_t>(found - list.begin());
  };
  if (rows.answer_is == "text") return place_in(options);
  if (rows.answer_is == "label" && !rows.labels.empty()) return place_in(row.texts(rows.labels));
  size_t place = options.size();
  if (rows.answer_is == "label") {
    if (answer.size() == 1) place = static_cast<size_t>(answer[0] - 'A');
  } else {
    size_t number = 0;
    const auto [end, error] = std::from_chars(answer.data(), answer.data() + answer.size(), number);
    const bool whole = error == std::errc() && end == answer.data() + answer.size();
    if (whole) place = rows.answer_is == "number" ? number - 1 : number;
  }
  if (place >= options.size()) row.refuse(fmt::format("the answer '{}' is none of {} options", answer, options.size()));
  return place;
}

TaskSeed seed_of(const RowReader& row, const SeedRows& rows, const std::string& default_topic) {
  TaskSeed seed{.topic = rows.topic.empty() ? default_topic : row.filled(rows.topic),
                .fact = row.filled(rows.fact),
                .context = row.filled(rows.context),
                .question = row.filled(rows.question)};
  if (rows.options.empty()) {
    seed.answer = row.filled(rows.answer);
    return seed;
  }
  std::vector<std::string> options;
  for (const auto& field : rows.options) {
    for (auto& option : row.texts(field)) options.push_back(std::move(option));
  }
  const size_t right = right_option(row, rows, options);
  seed.answer = options[right];
  options.erase(options.begin() + static_cast<ptrdiff_t>(right));
  seed.wrong = std::move(options);
  return seed;
}

}  // namespace

std::vector<TaskSeed> read_seed_rows(const std::filesystem::path& file, const Task& task, uint64_t seed) {
  const SeedRows& rows = task.seed_rows;
  auto records = read_jsonl(file);
  Rng(seed, "synth/seed_rows").shuffle(records);
  std::vector<TaskSeed> seeds;
  for (const auto& record : records) {
    if (static_cast<int64_t>(seeds.size()) == rows.limit) break;
    auto row = seed_of({file, record}, rows, task.description);
    if (task.writes_wrong() && static_cast<int64_t>(row.wrong.size()) + 1 != task.options_of_a_pair()) continue;
    seeds.push_back(std::move(row));
  }
  if (!seeds.empty()) return seeds;
  throw Error(
      ErrorKind::kInput, file.string(), fmt::format("none of its {} rows can be a seed", records.size()),
      fmt::format("JSON lines, a row each, with {} options where the task has options", task.options_of_a_pair()));
}

}  // namespace potstill
