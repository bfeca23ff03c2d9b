// [train] settings out of a file: the best.yaml that a search writes, or any recipe.
#pragma once

#include <filesystem>

#include "potstill/distill/distill_config.h"

namespace potstill {

// `train` with what the file's [train] section says. Throws Error(kIo | kUsage) with file and line.
DistillConfig read_train_overlay(const std::filesystem::path& file, DistillConfig train);

}  // namespace potstill
