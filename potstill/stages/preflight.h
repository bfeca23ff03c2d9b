// Preflight: the whole plan is checked before hours are spent on it (DESIGN, decision 12).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "potstill/formats/model_config.h"
#include "potstill/recipe/recipe.h"

namespace potstill {

// What a stage will about need; a row of the table that preflight prints.
struct StageEstimate {
  std::string stage;
  uint64_t memory_bytes = 0;  // peak of the process
  uint64_t disk_bytes = 0;    // that the stage leaves
  double flops = 0;           // multiplications and additions
  double seconds = 0;         // that these take on this machine; 0 until preflight has measured its speed
};

// From the models' shapes and the recipe alone: nothing is read but headers.
std::vector<StageEstimate> estimate_stages(const Recipe& recipe, const ModelConfig& teacher,
                                           const ModelConfig& student);

// Opens every model and file that the recipe names, and checks that they fit together: shapes, tokenizers that give
// every id the same token, group sizes that divide the widths, layers to prune, pairs or task present, room on the
// disk. Prints the table of memory, disk and time and returns it. Throws Error before anything is written.
std::vector<StageEstimate> preflight(const Recipe& recipe, const std::filesystem::path& run_dir);

}  // namespace potstill
