// merge: base and adapter as one Hugging Face folder, proven equal.
#pragma once

#include <filesystem>
#include <string>

#include "potstill/stages/artifact.h"

namespace potstill {

struct MergeInputs {
  std::filesystem::path model;    // base: Hugging Face folder or GGUF
  std::filesystem::path adapter;  // PEFT folder
  std::string dtype =
      "auto";  // of the merged weights: auto = the base's own, fp32 for a quantized base; fp32|bf16|fp16
};

StageKey merge_key(const MergeInputs& inputs);

// Writes the folder and records the proof (nn/merge.h). A failed proof throws, and nothing appears under the artifact's
// name.
void run_merge_stage(const MergeInputs& inputs, ArtifactWriter& out);

}  // namespace potstill
