// A training run on the disk: what the next step needs, in one safetensors file that appears whole or not at all.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "potstill/optim/optimizer.h"

namespace potstill {

struct TrainCheckpoint {
  std::string work;      // hash of what is trained on what: a checkpoint of other work is not taken up
  nlohmann::json state;  // steps done, their records, measurements
  std::vector<NamedTensor> tensors;
};

// Replaces <folder>/checkpoint.safetensors.
void save_checkpoint(const std::filesystem::path& folder, const TrainCheckpoint& checkpoint);

// Nothing when the folder has none, or one of other work (which is said). Throws Error(kFormat) for a damaged one.
std::optional<TrainCheckpoint> load_checkpoint(const std::filesystem::path& folder, const std::string& work);

}  // namespace potstill
