#include "potstill/base/error.h"
#include "potstill/eval/python_text.h"
#include "potstill/eval/task.h"

namespace potstill {

// Partial evaluation: each option fills the gap, and what follows it is scored.        Trinh and Le, arXiv:1806.02847
EvalTask winogrande_task() {
  return {.name = "winogrande",
          .folder = "winogrande",
          .split = "validation",
          .version = 1.0,
          .metrics = {"acc"},
          .ask =
              [](const Row& row) {
                const std::string sentence = row.text("sentence");
                const size_t gap = sentence.find('_');
                if (gap == std::string::npos) {
                  throw Error(ErrorKind::kInput, row.where, "the sentence has no gap '_'");
                }
                const std::string before = sentence.substr(0, gap);
                const std::string rest(strip(std::string_view(sentence).substr(gap + 1)));
                auto question = plain_question(row, "", {before + row.text("option1"), before + row.text("option2")},
                                               row.integer("answer") - 1);
                question.contexts = question.choices;
                question.continuations.assign(2, rest);
                question.target = rest;
                return question;
              },
          .subtask = {},
          .drops_asked_row = true};
}

}  // namespace potstill
