#include "potstill/eval/task.h"

namespace potstill {

EvalTask arc_easy_task() {
  return {.name = "arc_easy",
          .folder = "arc_easy",
          .split = "test",
          .version = 1.0,
          .metrics = {"acc", "acc_norm"},
          .ask =
              [](const Row& row) {
                return plain_question(row, "Question: " + row.text("question") + "\nAnswer:", row.texts("choices.text"),
                                      label_index(row, row.texts("choices.label"), row.text("answerKey")));
              },
          .subtask = {}};
}

}  // namespace potstill
