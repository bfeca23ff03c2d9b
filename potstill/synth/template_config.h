// The {names} that a task's templates may hold: what recipe/task_file.h checks and synth/render.h fills in.
#pragma once

#include <algorithm>
#include <array>
#include <cctype>
#include <string>
#include <string_view>

namespace potstill {

constexpr auto kTemplateNames = std::to_array<std::string_view>(
    {"question", "context", "answer", "letter", "number", "options", "subtopic", "subject", "fact", "before", "after"});

// Calls on_text and on_name for what stands between and inside braces, in order. A brace without its other half, or
// around something that is no plain word, is text: JSON in an instruction stays what it is.
template <class OnText, class OnName>
void walk_template(std::string_view text, const OnText& on_text, const OnName& on_name) {
  while (!text.empty()) {
    const size_t open = text.find('{'), close = open == std::string_view::npos ? open : text.find('}', open);
    if (close == std::string_view::npos) return on_text(text);
    const std::string_view name = text.substr(open + 1, close - open - 1);
    const bool is_word =
        !name.empty() && std::ranges::all_of(name, [](unsigned char c) { return std::isalnum(c) != 0 || c == '_'; });
    on_text(text.substr(0, is_word ? open : open + 1));
    if (is_word) on_name(name);
    text.remove_prefix(is_word ? close + 1 : open + 1);
  }
}

// The first name in braces that is none of kTemplateNames and no letter of an option; "" when there is none.
inline std::string unknown_template_name(std::string_view text) {
  std::string unknown;
  walk_template(
      text, [](std::string_view) {},
      [&](std::string_view name) {
        const bool is_option = name.size() == 1 && name[0] >= 'A' && name[0] <= 'Z';
        const bool known = is_option || std::ranges::find(kTemplateNames, name) != kTemplateNames.end();
        if (unknown.empty() && !known) unknown = name;
      });
  return unknown;
}

}  // namespace potstill
