// Which linears rounding hurts most, measured; and where a budget of bits is therefore spent.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "potstill/lm/model_package.h"
#include "potstill/nn/layer_stream.h"
#include "potstill/quant/quantize_layer.h"

namespace potstill {

// ‖h − h'‖² / ‖h‖² of a block's output, the mean over tokens, when one set of its linears (q, k, v; o; gate, up; down)
// is rounded to 4 bits alone and all else is as it was: [layers * 7] in kLinearNames' order, the set's value at each of
// its linears. Rounded with the scale of least squared error. One pass over the sequences, layer by layer.
std::vector<double> measure_sensitivity(const ModelPackage& model, std::span<const std::vector<TokenId>> sequences,
                                        const GridSpec& grid, const LayerStreamOptions& stream);

// Bits a weight of the linears with their scales (and zeros). eight_bits as in QuantizeSettings, empty = none.
double bits_per_weight(const ModelConfig& config, const GridSpec& grid, const std::vector<bool>& eight_bits);

// The sets that get 8 bits so that bits_per_weight stays at or under target: those with the largest effect per weight
// first, whole sets alone (vLLM joins q, k, v and gate, up into one). Throws Error(kUsage) when even none fits.
std::vector<bool> choose_eight_bits(const ModelConfig& config, const GridSpec& grid,
                                    const std::vector<double>& sensitivity, double target_bpw);

}  // namespace potstill
