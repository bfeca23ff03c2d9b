// GPTQ: rounds the columns of a weight one by one and lets the columns not yet rounded make up for each error.
//   Frantar et al., arXiv:2210.17323, algorithm 1; gptq.md sections 4 and 7
#pragma once

#include <ATen/ATen.h>

#include "potstill/quant/grid.h"
#include "potstill/quant/hessian.h"

namespace potstill {

struct GptqResult {
  QuantizedWeight weight;
  // ½ tr((W−Q)(H+λI)(W−Q)ᵀ), summed as the loop goes; 0 without a factor
  double loss = 0.0;
};

// weight [O, I] (rows of linears that share their input may be stacked: rows do not see each other) -> codes and
// scales. order must be the one the factor was made for. Without a factor this is round_to_nearest under the same scale
// search. block_size: columns between two updates of the rest; changes rounding only. Throws Error(kUsage) when the
// group does not divide I.
GptqResult gptq_quantize(const at::Tensor& weight, const HessianFactor& factor, const GridSpec& grid, QuantOrder order,
                         int64_t block_size = 128);

// Each weight to the nearest value of its grid. importance [I] or undefined (all ones): weights of the scale search.
QuantizedWeight round_to_nearest(const at::Tensor& weight, const GridSpec& grid, const at::Tensor& importance = {});

}  // namespace potstill
