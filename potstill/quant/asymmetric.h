// Asymmetric calibration: a linear is fitted not to its own output on the inputs that the quantized model before it
// gives (X), but to the output it had on the full-precision model's inputs (X̃) of the same tokens.
//   argmin_Q ‖Q X − W X̃‖ = argmin_Q ‖(Q − W*) X‖,  W* − W = W D (H + λI)⁻¹,  D = (X̃ − X) Xᵀ        gptq.md section 10
// Full strength chases the calibration text and breaks models; W + a (W* − W) is taken, a measured on tokens that D and
// H of the fit did not see.                                                                      GPTAQ,
// arXiv:2504.02692
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <optional>

#include "potstill/quant/hessian.h"

namespace potstill {

struct AsymmetricOptions {
  double largest_strength = 0.5;
  double damp = 0.1;  // λ of the correction alone, as a share of H's mean diagonal: the corpus decides less
};

struct AsymmetricTarget {
  at::Tensor weight;           // [O, I] fp32: W + a (W* − W)
  double strength = 0.0;       // a
  double held_out_gain = 0.0;  // by how much ‖W_a X − W X̃‖² falls on held-out tokens, as a share of ‖W X‖²
};

// H, and D where the full-precision inputs are given, over batches; the held-out ones apart.
class DriftStatistics {
 public:
  DriftStatistics(int64_t width, at::Device device);

  // inputs [T, I]: Xᵀ. reference: X̃ᵀ of the same tokens, or undefined in every call.
  void add(const at::Tensor& reference, const at::Tensor& inputs, bool held_out);
  at::Tensor hessian() const;  // of all tokens, as HessianAccumulator::finish
  at::Tensor fitted_hessian() const { return fitted_.finish(); }
  at::Tensor held_out_hessian() const { return held_out_->finish(); }
  bool has_held_out() const { return held_out_.has_value(); }
  int64_t num_tokens() const;

 private:
  friend AsymmetricTarget fit_asymmetric_target(const at::Tensor&, const DriftStatistics&, const AsymmetricOptions&);

  HessianAccumulator fitted_;
  std::optional<HessianAccumulator> held_out_;  // from the first held-out batch on
  at::Tensor fitted_drift_, held_out_drift_;    // [I, I] fp32 sums of (x̃ − x) xᵀ, once a reference came
};

// weight [O, I]. Without held-out tokens the strength is half of the largest. A statistic that is not finite, or a
// system that cannot be solved, gives W itself with strength 0.
AsymmetricTarget fit_asymmetric_target(const at::Tensor& weight, const DriftStatistics& statistics,
                                       const AsymmetricOptions& options);

}  // namespace potstill
