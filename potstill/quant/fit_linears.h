// One set of linears that share their input, from what was seen of the input to codes and scales.
#pragma once

#include <ATen/ATen.h>

#include "potstill/quant/asymmetric.h"
#include "potstill/quant/gptq.h"
#include "potstill/quant/module_row.h"
#include "potstill/quant/quantize_layer.h"

namespace potstill {

struct LinearFit {
  QuantizedWeight weight;  // of the stack
  HessianFactor factor;
  double strength = 0.0, held_out_gain = 0.0, refine_gain = 0.0;
  double seconds_factor = 0.0, seconds_codes = 0.0;
};

// stack [O, I] fp32: the rows of all linears of the set, which do not see each other. hessian is statistics.hessian().
LinearFit fit_linears(const at::Tensor& stack, const at::Tensor& hessian, const DriftStatistics& statistics,
                      const GridSpec& grid, const QuantizeSettings& settings);

// What would have helped this linear, measured: its error with 8 bits, with groups of half the size, and with an eighth
// of the tokens kept out of the fit. Fills the row's error_… fields. factor: the fit's own.
void measure_remedies(const at::Tensor& weight, const at::Tensor& hessian, const DriftStatistics& statistics,
                      const GridSpec& grid, const QuantizeSettings& settings, const HessianFactor& factor,
                      ModuleRow& row);

}  // namespace potstill
