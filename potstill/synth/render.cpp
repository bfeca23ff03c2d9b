#include "potstill/synth/render.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <string_view>

#include "potstill/synth/template_config.h"

namespace potstill {
namespace {

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front())) != 0) text.remove_prefix(1);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())) != 0) text.remove_suffix(1);
  return text;
}

std::string lettered(const std::vector<std::string>& options) {
  std::string lines;
  for (size_t i = 0; i < options.size(); ++i) {
    lines += fmt::format("{}{}. {}", i == 0 ? "" : "\n", option_letter(static_cast<int64_t>(i)), options[i]);
  }
  return lines;
}

std::string value_of(std::string_view name, const Task& task, const Pair& pair, int64_t option) {
  const size_t gap = pair.question.find('_');
  if (name == "question") return pair.question;
  if (name == "context") return pair.context;
  if (name == "answer") return pair.options.empty() ? pair.answer : pair.options.at(static_cast<size_t>(option));
  if (name == "letter") return std::string(1, option_letter(option));
  if (name == "number") return fmt::format("{}", option + 1);
  if (name == "options") return lettered(pair.options);
  if (name == "subtopic") return pair.unit.subtopic;
  if (name == "subject") return task.subject.empty() ? pair.unit.subtopic : task.subject;
  if (name == "fact") return pair.unit.fact;
  if (name == "before") return pair.question.substr(0, std::min(gap, pair.question.size()));
  if (name == "after") {
    return gap == std::string::npos ? "" : std::string(trimmed(std::string_view(pair.question).substr(gap + 1)));
  }
  const auto place = static_cast<size_t>(name[0] - 'A');
  return place < pair.options.size() ? pair.options[place] : "";
}

std::string fill(std::string_view text_template, const Task& task, const Pair& pair, int64_t option) {
  std::string text;
  walk_template(
      text_template, [&](std::string_view part) { text += part; },
      [&](std::string_view name) { text += value_of(name, task, pair, option); });
  return text;
}

}  // namespace

char option_letter(int64_t option) { return static_cast<char>('A' + option); }

Rendered render_pair(const Task& task, const Pair& pair, int64_t option) {
  if (option < 0) option = pair.key;
  return {.instruction = fill(task.instruction, task, pair, option),
          .input = fill(task.input, task, pair, option),
          .output = fill(task.output, task, pair, option)};
}

}  // namespace potstill
