#include "potstill/eval/task.h"

namespace potstill {

// The question stem stands alone: no "Question:", no "Answer:".
EvalTask openbookqa_task() {
  return {.name = "openbookqa",
          .folder = "openbookqa",
          .split = "test",
          .version = 1.0,
          .metrics = {"acc", "acc_norm"},
          .ask =
              [](const Row& row) {
                std::string answer = row.text("answerKey");
                answer.erase(0, answer.find_first_not_of(" \t\n\r"));
                return plain_question(row, row.text("question_stem"), row.texts("choices.text"),
                                      label_index(row, row.texts("choices.label"), answer));
              },
          .subtask = {}};
}

}  // namespace potstill
