// teach: one pass of the model teacher over the pairs, kept as a knowledge cache.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "potstill/distill/distill_config.h"
#include "potstill/stages/artifact.h"

namespace potstill {

struct TeachInputs {
  std::filesystem::path teacher;  // Hugging Face folder or GGUF, or an endpoint: http://…/v1
  std::filesystem::path data;     // pairs, JSONL
  std::string dtype = "auto", device = "auto";
};

StageKey teach_key(const TeachInputs& inputs, const TeachConfig& config, const DistillDataConfig& data, uint64_t seed);

// Writes the cache (distill/knowledge_cache.h, or distill/top_k_cache.h for an endpoint). A pass that was killed goes
// on at the layer (the pair) where it was.
void run_teach_stage(const TeachInputs& inputs, const TeachConfig& config, const DistillDataConfig& data,
                     ArtifactWriter& out);

}  // namespace potstill
