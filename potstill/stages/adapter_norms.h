// How large a LoRA update is beside the weights that it changes.
#pragma once

#include <filesystem>

#include "potstill/lm/model_package.h"

namespace potstill {

struct AdapterNorms {
  double mean_relative_norm = 0;  // ||s B A||₂ / ||W||₂ (spectral), the mean over the adapted linears
  double max_relative_norm = 0;
  double mean_stable_rank = 0;  // ||s B A||_F² / ||s B A||₂²: how many directions the update really has
};

// Spectral norms of the updates by singular values of the r × r core, of the weights by power iteration to 1e-3.
AdapterNorms measure_adapter_norms(const ModelPackage& base, const std::filesystem::path& adapter);

}  // namespace potstill
