// prune: a student out of a model by dropping decoder layers.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "potstill/nn/prune_config.h"
#include "potstill/stages/artifact.h"

namespace potstill {

struct PruneInputs {
  std::filesystem::path model;                  // Hugging Face folder or GGUF
  std::string dtype = "auto", device = "auto";  // arithmetic of the calibration pass
};

StageKey prune_key(const PruneInputs& inputs, const PruneConfig& config, uint64_t seed);

// Writes a Hugging Face folder. Results: the layers kept, the order of removal, each layer's influence.
void run_prune_stage(const PruneInputs& inputs, const PruneConfig& config, ArtifactWriter& out);

}  // namespace potstill
