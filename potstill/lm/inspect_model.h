// What `potstill inspect` shows of a model: all of it from headers and metadata, no weight is read.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "potstill/lm/model_package.h"

namespace potstill {

struct InspectOptions {
  bool tensors = false;  // every weight with its type and shape too
};

nlohmann::ordered_json inspect_model(const ModelPackage& model, const InspectOptions& options = {});

// The same as a few aligned lines.
std::string inspection_text(const nlohmann::ordered_json& inspection);

}  // namespace potstill
