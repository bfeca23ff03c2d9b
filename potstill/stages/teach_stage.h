// teach: one pass of the model teacher over the pairs, kept as a knowledge cache.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "potstill/distill/distill_config.h"
#include "potstill/stages/artifact.h"

namespace potstill {

struct TeachInputs {
  std::filesystem::path teacher;  // Hugging Face folder or GGUF
  std::filesystem::path data;     // pairs, JSONL
  std::string dtype = "auto", device = "auto";
};

StageKey teach_key(const TeachInputs& inputs, const TeachConfig& config, const DistillDataConfig& data, uint64_t seed);

// Writes the cache (distill/knowledge_cache.h). A pass that was killed starts again: each layer's weights are read
// once, so it costs what one pass over the pairs costs.
void run_teach_stage(const TeachInputs& inputs, const TeachConfig& config, const DistillDataConfig& data,
                     ArtifactWriter& out);

}  // namespace potstill
