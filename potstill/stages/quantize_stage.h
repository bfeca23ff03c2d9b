// quantize: a model's decoder linears in 4 bits, as a compressed-tensors folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "potstill/quant/calibration.h"
#include "potstill/quant/quant_config.h"
#include "potstill/stages/artifact.h"

namespace potstill {

struct QuantizeInputs {
  std::filesystem::path model;                 // Hugging Face folder or GGUF
  std::vector<CalibrationSource> calibration;  // .jsonl or text; may be empty for method rtn
  std::string dtype = "auto";                  // arithmetic of the forward: auto = fp32, which the fit is worth
  std::string device = "auto";
};

// What makes two quantizations the same: the config, the arithmetic and the files.
StageKey quantize_key(const QuantizeInputs& inputs, const QuantizeConfig& config, uint64_t seed);

// Writes config.json, tokenizer files, model*.safetensors, README.md (the model's card) and layer_errors.jsonl (a line
// for each linear). With fake_quant the folder holds the dequantized weights in float32. Finished layers are kept under
// work/, so that a killed run goes on at the layer where it was and ends with the same bytes.
void run_quantize_stage(const QuantizeInputs& inputs, const QuantizeConfig& config, ArtifactWriter& out);

}  // namespace potstill
