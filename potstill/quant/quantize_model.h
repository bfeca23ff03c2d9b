// Quantizes a whole model, layer by layer, in the memory of one layer and the calibration corpus's hidden states.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "potstill/lm/model_package.h"
#include "potstill/nn/layer_stream.h"
#include "potstill/quant/quant_config.h"
#include "potstill/quant/quantize_layer.h"

namespace potstill {

// Where finished layers are kept, so that a killed run goes on: `load` gives a layer that an earlier run finished,
// `save` is called as soon as one is done and must have it on the disk when it returns.
struct LayerKeeper {
  std::function<std::optional<QuantizedLayer>(int64_t layer)> load;
  std::function<void(const QuantizedLayer& layer)> save;
};

// The settings that a config means for this model: "auto" resolved. Throws Error(kUsage) before any work: a group that
// does not divide a width, a clip rule that needs calibration the method has not, bits that are neither 4 nor 8.
QuantizeSettings resolve_settings(const QuantizeConfig& config, const ModelConfig& model);

// Quantizes every linear of the decoder layers; embeddings, head and norms are left alone. Layers come out through the
// keeper, in order. Where settings.target_bpw asks for 8-bit linears, settings.eight_bits says which: plan_eight_bits
// first. Throws Error(kNumeric) when more than 5 % of the linears had to be rounded as a last resort, and
// Error(kInterrupted) between two layers after Ctrl-C. The same sequences, settings and threads give the same bytes,
// however often the work was cut off.
void quantize_model(const ModelPackage& model, std::span<const std::vector<TokenId>> calibration,
                    const QuantizeSettings& settings, const LayerStreamOptions& stream, const LayerKeeper& keeper);

// Measures which linears rounding hurts most on the first sequences and fills settings.eight_bits and .sensitivity,
// where settings.target_bpw asks for it.
void plan_eight_bits(const ModelPackage& model, std::span<const std::vector<TokenId>> calibration,
                     const LayerStreamOptions& stream, QuantizeSettings& settings);

}  // namespace potstill
