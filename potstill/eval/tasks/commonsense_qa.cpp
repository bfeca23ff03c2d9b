#include "potstill/eval/python_text.h"
#include "potstill/eval/task.h"

namespace potstill {

EvalTask commonsense_qa_task() {
  return {.name = "commonsense_qa",
          .folder = "commonsense_qa",
          .split = "validation",
          .version = "Yaml",  // the harness's task file gives none
          .metrics = {"acc"},
          .ask =
              [](const Row& row) {
                const int64_t gold = label_index(row, row.texts("choices.label"), row.text("answerKey"));
                auto question = lettered_question(row, "Question: " + std::string(strip(row.text("question"))),
                                                  row.texts("choices.text"), gold);
                question.target = row.text("answerKey");
                return question;
              },
          .subtask = {},
          .drops_asked_row = true};
}

}  // namespace potstill
