// outliers: how far activations and weights of a run's students stick out, before and after training and quantization.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "potstill/stages/artifact.h"

namespace potstill {

struct OutliersInputs {
  struct Model {
    std::string label;
    std::filesystem::path path;
  };
  std::vector<Model> models;
  std::filesystem::path text;  // pairs, or plain text
  bool plain = false;          // pairs without the chat template
  std::string device = "auto";
};

StageKey outliers_key(const OutliersInputs& inputs, uint64_t seed);

// Writes outliers.json: what inspect_outliers() gives, each model with its label; on 32 pairs, or 4,096 tokens of text.
void run_outliers_stage(const OutliersInputs& inputs, ArtifactWriter& out);

}  // namespace potstill
