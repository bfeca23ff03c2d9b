#include "potstill/eval/python_text.h"
#include "potstill/eval/task.h"

namespace potstill {
namespace {

// Every shortest "[…]" within a line.
std::string drop_brackets(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t open = text.find('[');
    const size_t close = open == std::string_view::npos ? open : text.find_first_of("]\n", open + 1);
    if (open == std::string_view::npos) break;
    const bool whole = close != std::string_view::npos && text[close] == ']';
    out += text.substr(0, whole ? open : open + 1);
    text.remove_prefix(whole ? close + 1 : open + 1);
  }
  out += text;
  return out;
}

std::string clean(std::string_view text) {
  return replace_all(drop_brackets(replace_all(strip(text), " [title]", ". ")), "  ", " ");
}

}  // namespace

EvalTask hellaswag_task() {
  return {.name = "hellaswag",
          .folder = "hellaswag",
          .split = "validation",
          .version = 1.0,
          .metrics = {"acc", "acc_norm"},
          .ask =
              [](const Row& row) {
                // capitalize() lower-cases the rest of ctx_b too, names included: so does the harness
                const std::string context = row.text("ctx_a") + " " + capitalize(row.text("ctx_b"));
                const std::string query = clean(row.text("activity_label") + ": " + context);
                auto choices = row.texts("endings");
                for (auto& choice : choices) choice = clean(choice);
                auto question = plain_question(row, query, choices, row.integer("label"));
                question.doc["query"] = query;
                question.doc["choices"] = choices;
                question.doc["gold"] = question.gold;
                return question;
              },
          .subtask = {},
          .drops_asked_row = true};
}

}  // namespace potstill
