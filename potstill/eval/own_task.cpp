#include "potstill/eval/own_task.h"

#include <fmt/format.h>

#include <algorithm>

#include "potstill/base/error.h"

namespace potstill {
namespace {

void require(bool holds, const std::string& where, const std::string& what, const std::string& hint) {
  if (!holds) throw Error(ErrorKind::kUsage, where, what, hint);
}

int64_t gold_of(const OwnTaskConfig& config, const Row& row, const std::vector<std::string>& choices) {
  if (config.answer_is == "index") return row.integer(config.answer);
  if (config.answer_is == "number") return row.integer(config.answer) - 1;
  const std::string answer = row.shown(config.answer);
  if (config.answer_is == "text") return label_index(row, choices, answer);
  if (answer.size() != 1 || answer[0] < 'A' || answer[0] > 'Z') {
    throw Error(ErrorKind::kInput, row.where,
                fmt::format("field '{}' is '{}' but must be a letter from A", config.answer, answer));
  }
  return answer[0] - 'A';
}

Question ask(const OwnTaskConfig& config, const Row& row) {
  std::vector<std::string> choices;
  if (config.choices_field.empty()) {
    for (const auto& choice : config.choices) choices.push_back(fill_fields(choice, row));
  } else {
    choices = row.texts(config.choices_field);
  }
  const int64_t gold = gold_of(config, row, choices);
  auto question = plain_question(row, fill_fields(config.prompt, row), std::move(choices), gold);
  question.description = config.description;
  question.delimiter = config.delimiter;
  return question;
}

}  // namespace

std::string fill_fields(std::string_view pattern, const Row& row) {
  std::string out;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if ((c == '{' || c == '}') && pattern.substr(i + 1, 1) == std::string_view(&c, 1)) {
      out += c;
      ++i;
    } else if (c == '{') {
      const size_t close = pattern.find('}', i);
      const auto field = pattern.substr(i + 1, close == std::string_view::npos ? close : close - i - 1);
      if (close == std::string_view::npos || field.find('{') != std::string_view::npos) {
        throw Error(ErrorKind::kUsage, fmt::format("'{}'", pattern), "a brace is opened and not closed",
                    "write {{ for a brace that is text");
      }
      out += row.shown(field);
      i = close;
    } else if (c == '}') {
      throw Error(ErrorKind::kUsage, fmt::format("'{}'", pattern), "a brace is closed that was not opened",
                  "write }} for a brace that is text");
    } else {
      out += c;
    }
  }
  return out;
}

EvalTask own_task(const OwnTaskConfig& config, const std::string& where) {
  require(!config.name.empty(), where, "the task has no 'name'", "name: my_task");
  require(!config.rows.empty(), where, "the task has no 'rows'", "rows: my_rows.jsonl, relative to the task file");
  require(!config.prompt.empty(), where, "the task has no 'prompt'", "prompt: \"Question: {question}\\nAnswer:\"");
  require(!config.answer.empty(), where, "the task has no 'answer'", "the row's field that tells the right choice");
  require(config.choices.empty() != config.choices_field.empty(), where,
          "the task needs either 'choices' or 'choices_field'", "choices: [\"yes\", \"no\"]");
  require(config.choices_field.empty() ? config.choices.size() >= 2 : true, where, "one choice is no choice",
          "give two or more");
  require(!config.metrics.empty(), where, "the task has no 'metrics'", "metrics: [acc]");
  const auto plain = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-'; };
  require(std::ranges::all_of(config.name, plain), where,
          fmt::format("the name '{}' goes into file names", config.name), "use letters, digits, '_' and '-'");
  const bool same_rows = config.fewshot_rows.empty() || config.fewshot_rows == config.rows;
  return {.name = config.name,
          .folder = {},
          .split = {},
          .version = 0.0,
          .metrics = config.metrics,
          .ask = [config](const Row& row) { return ask(config, row); },
          .subtask = {},
          .drops_asked_row = same_rows,
          .file = config.rows,
          .fewshot_file = config.fewshot_rows};
}

}  // namespace potstill
