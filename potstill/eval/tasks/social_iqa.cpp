#include "potstill/eval/task.h"

namespace potstill {

EvalTask social_iqa_task() {
  return {.name = "social_iqa",
          .folder = "siqa",
          .split = "validation",
          .version = 0.0,
          .metrics = {"acc"},
          .ask =
              [](const Row& row) {
                return plain_question(row, "Q: " + row.text("context") + " " + row.text("question") + "\nA:",
                                      {row.text("answerA"), row.text("answerB"), row.text("answerC")},
                                      row.integer("label") - 1);
              },
          .subtask = {},
          .drops_asked_row = true};
}

}  // namespace potstill
