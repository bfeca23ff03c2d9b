// A 4-bit model as a folder in another layout than its own.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

#include "potstill/lm/model_package.h"

namespace potstill {

// GPTQ's layout (formats/gptq_checkpoint.h): the codes and scales as they are, the other weights in fp16,
// quantize_config.json beside config.json. version: of its zero points, 1 or 2. Throws Error(kUsage) for a model that
// is not in 4 bits, Error(kInput) for what the layout cannot hold.
nlohmann::ordered_json export_gptq_model(const ModelPackage& model, int version, const std::filesystem::path& folder);

// Plain safetensors of the dequantized weights in float32, which holds an fp16 scale times a code exactly: what any
// program loads, as large as an unquantized model.
nlohmann::ordered_json export_dequantized_model(const ModelPackage& model, const std::filesystem::path& folder);

}  // namespace potstill
