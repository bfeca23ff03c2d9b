// What can still be gained once GPTQ has fixed every code: other codes, then other scales, as long as the layer's
// damped error tr((W−Q)(H+λI)(W−Q)ᵀ) falls. Storage does not change.                                gptq.md sections 6,
// 10
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "potstill/quant/grid.h"

namespace potstill {

struct RefineOptions {
  int64_t rounds = 1;        // of descent and refit; ends early when a round moves nothing
  bool refit_scales = true;  // least squares over all scales of a row at once, kept where fp16 rounding leaves a gain
};

struct RefineResult {
  QuantizedWeight weight;
  double loss_before = 0.0, loss_after = 0.0;  // tr((W−Q)(H+λI)(W−Q)ᵀ) / 2
  int64_t moved_codes = 0;
};

// target [O, I] fp32: the weights that Q stands in for. damped_hessian [I, I] symmetric, in the columns' own order.
// The loss never rises, in any row.
RefineResult refine(const at::Tensor& target, const QuantizedWeight& weight, const at::Tensor& damped_hessian,
                    const RefineOptions& options);

}  // namespace potstill
