// What --tasks names: the known benchmarks, and YAML files of a user's own.
#pragma once

#include <string>
#include <vector>

#include "potstill/eval/task.h"

namespace potstill {

// `split` replaces the scored split; empty leaves each task's own. Throws Error(kUsage | kIo).
std::vector<EvalTask> eval_tasks(const std::vector<std::string>& names, const std::string& split);

// The same for choosing settings by: rows that no reported number is taken from. With an empty split, the validation
// rows of tasks whose test rows are scored, the training rows of the others; own tasks are taken as they are. Throws
// Error(kUsage) for the split that is scored.
std::vector<EvalTask> tuning_tasks(const std::vector<std::string>& names, const std::string& split);

}  // namespace potstill
