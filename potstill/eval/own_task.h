// The questions of a benchmark that a user declared.
#pragma once

#include <string>
#include <string_view>

#include "potstill/eval/own_task_config.h"
#include "potstill/eval/task.h"

namespace potstill {

// Throws Error(kUsage) naming `where` for a declaration that cannot work.
EvalTask own_task(const OwnTaskConfig& config, const std::string& where);

// "Q: {question}" with a row's fields in place. Throws Error(kInput) for a field that the row lacks, Error(kUsage) for
// braces that do not match.
std::string fill_fields(std::string_view pattern, const Row& row);

}  // namespace potstill
