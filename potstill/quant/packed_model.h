// Quantized layers on the disk: kept one by one while a run lasts, then as one compressed-tensors folder.
#pragma once

#include <filesystem>
#include <string>

#include "potstill/formats/quantized_linear.h"
#include "potstill/lm/model_package.h"
#include "potstill/quant/quantize_model.h"

namespace potstill {

// Between the signed codes of the algorithm and the neutral form of every file.
QuantizedLinear to_quantized_linear(const std::string& module, const QuantizedWeight& weight);
QuantizedWeight from_quantized_linear(const QuantizedLinear& linear);

// Keeps each layer as a pack-quantized checkpoint of its own, "<folder>/layer-00007". Its rows.json is written last: a
// folder without it was being written when the run was killed, and counts as absent.
LayerKeeper keep_layers_in(const std::filesystem::path& folder, const QuantizeSettings& settings);

// Writes the whole model: linears from the keeper, everything else of `source` in fp16, config.json with
// quantization_config, tokenizer files. Throws Error(kNumeric) for a value that fp16 cannot hold.
void write_packed_model(const ModelPackage& source, const QuantizeSettings& settings, const LayerKeeper& layers,
                        const std::filesystem::path& folder);

}  // namespace potstill
