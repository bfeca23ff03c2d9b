// AWQ on a decoder layer: the scales of a set of linears by what rounding does to the part of the block they sit in.
#pragma once

#include <ATen/ATen.h>

#include <vector>

#include "potstill/quant/awq.h"
#include "potstill/quant/grid.h"
#include "potstill/quant/layer_steps.h"

namespace potstill {

// The layer as far as it is quantized, and the corpus at its input (for the second half: after attention).
struct AwqPart {
  const DecoderLayer& layer;
  const CorpusState& corpus;
  const RotaryTable& rotary;
  const ModelConfig& config;
};

// q, k, v are judged by the attention's output, gate and up by the MLP's, on the first sequences; o and down by their
// own, over the whole corpus (hessian). o is left alone when heads share their values (grouped queries): a row of v
// then feeds several columns of o.
AwqScales find_awq_scales(const AwqPart& part, const LinearSet& set, const std::vector<at::Tensor>& weights,
                          const at::Tensor& hessian, const at::Tensor& mean_magnitude, const GridSpec& grid);

// Rounds scaled weights to nearest under the grid's clip rule (no clipping in q and k) and stacks them.
QuantizedWeight round_awq(const LinearSet& set, const std::vector<at::Tensor>& weights, const at::Tensor& hessian,
                          const GridSpec& grid);

// scales [O, G] of rows whose outputs are divided by `by` [O], as fp16 stores them.
at::Tensor divide_scales(const at::Tensor& scales, const at::Tensor& by);

}  // namespace potstill
