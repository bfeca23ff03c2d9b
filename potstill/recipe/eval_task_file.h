// A user's own benchmark, in YAML.
#pragma once

#include <filesystem>

#include "potstill/eval/own_task_config.h"

namespace potstill {

bool is_eval_task_file(const std::filesystem::path& name);  // ends in .yaml or .yml

// Reads the keys of the task; paths of rows are made relative to the file. Throws Error(kIo | kUsage) with file and
// line.
OwnTaskConfig read_eval_task(const std::filesystem::path& path);

}  // namespace potstill
