#include "potstill/eval/task.h"

namespace potstill {

EvalTask piqa_task() {
  return {.name = "piqa",
          .folder = "piqa",
          .split = "validation",
          .version = 1.0,
          .metrics = {"acc", "acc_norm"},
          .ask =
              [](const Row& row) {
                return plain_question(row, "Question: " + row.text("goal") + "\nAnswer:",
                                      {row.text("sol1"), row.text("sol2")}, row.integer("label"));
              },
          .subtask = {},
          .drops_asked_row = true};
}

}  // namespace potstill
