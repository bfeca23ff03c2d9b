#include "potstill/stages/eval_tasks.h"

#include <fmt/format.h>

#include "potstill/base/error.h"
#include "potstill/eval/own_task.h"
#include "potstill/recipe/eval_task_file.h"

namespace potstill {

std::vector<EvalTask> eval_tasks(const std::vector<std::string>& names, const std::string& split) {
  std::vector<EvalTask> tasks;
  for (const auto& name : names) {
    tasks.push_back(is_eval_task_file(name) ? own_task(read_eval_task(name), name) : find_task(name));
    if (!split.empty()) tasks.back().split = split;
  }
  return tasks;
}

std::vector<EvalTask> tuning_tasks(const std::vector<std::string>& names, const std::string& split) {
  std::vector<EvalTask> tasks = eval_tasks(names, {});
  for (auto& task : tasks) {
    if (!task.file.empty()) continue;
    const std::string scored = task.split, wanted = !split.empty() ? split : scored == "test" ? "validation" : "train";
    if (wanted == scored) {
      throw Error(ErrorKind::kUsage, "accuracy_split",
                  fmt::format("'{}' holds the rows of {} that are reported: settings chosen by them look better than "
                              "they are",
                              wanted, task.name),
                  "leave it out, or name another split");
    }
    task.split = wanted;
  }
  return tasks;
}

}  // namespace potstill
