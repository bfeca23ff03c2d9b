// From a task's files to the questions that are asked.
#pragma once

#include <vector>

#include "potstill/eval/benchmarks.h"
#include "potstill/text/chat_template.h"

namespace potstill {

// A task's questions with their examples before them, ready to be scored; a group's, task by task in alphabetical
// order. chat_template is used when config applies it. Throws Error(kIo | kFormat | kInput | kUsage).
std::vector<TaskResult> ask_questions(const EvalTask& task, const EvalConfig& config,
                                      const ChatTemplate* chat_template);

}  // namespace potstill
