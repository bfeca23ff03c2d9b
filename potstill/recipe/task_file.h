// Task files: what D_gen is about, in YAML.
#pragma once

#include <filesystem>

#include "potstill/synth/task_config.h"

namespace potstill {

// Reads and checks a task. Throws Error(kIo) when there is no such file, Error(kUsage) with file and line for an
// unknown key, a wrong type or range, and for a task that cannot work (no seeds, a rating without a question, …).
Task read_task(const std::filesystem::path& path);

// Where a task named on the command line or in a recipe is: as given; beside the recipe; or "<name>.yaml" in
// recipes/tasks of the recipe's folder, the working directory, the installation or the source tree. Throws Error(kIo)
// with the places that were looked at.
std::filesystem::path find_task(const std::filesystem::path& named, const std::filesystem::path& recipe_folder = {});

}  // namespace potstill
