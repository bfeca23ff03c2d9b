// A model as the file that its consumers load, and the proof that it is the same model.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

#include "potstill/lm/model_package.h"
#include "potstill/quant/quant_config.h"

namespace potstill {

// Writes a GGUF file. A symmetric 4-bit model's linears go into Q4_0 (asymmetric: Q4_1) with their codes and scales
// untouched; any other model's are rounded by ggml's reference rules. Returns the sizes by kind of tensor.
// Throws Error(kUsage) for types that would round 4-bit weights again.
nlohmann::ordered_json export_gguf_model(const ModelPackage& model, const ExportConfig& config,
                                         const std::filesystem::path& file);

// Copies a compressed-tensors model's files into a folder, whole. Throws Error(kUsage) for any other model: quantize
// it.
nlohmann::ordered_json export_compressed_tensors_model(const ModelPackage& model, const std::filesystem::path& folder);

// Reads the exported file back and compares it with its source: every weight within the rounding of its type (exactly
// equal where the type holds it), logits of a probe text, token ids and the rendered chat template. Returns what was
// measured; throws Error(kNumeric) when anything is off.
nlohmann::ordered_json prove_export(const ModelPackage& source, const std::filesystem::path& exported);

}  // namespace potstill
