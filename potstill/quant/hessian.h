// H = X Xᵀ / T of a linear's calibration inputs, and what GPTQ needs of it.                    gptq.md sections 2, 3, 8
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "potstill/quant/grid.h"

namespace potstill {

// Adds up H over batches in the order they come. Linears that see one input (q, k, v; gate, up) share one.
class HessianAccumulator {
 public:
  HessianAccumulator(int64_t width, at::Device device);

  void add(const at::Tensor& inputs);  // [T, I], any float dtype, real tokens only
  int64_t num_tokens() const { return num_tokens_; }
  // [I, I] double, symmetric; throws Error(kInput) when no token was seen. more: whose tokens count as well.
  at::Tensor finish(const HessianAccumulator* more = nullptr) const;

 private:
  at::Tensor sum_;  // upper block triangle
  int64_t num_tokens_ = 0;
};

// Why a factorisation was not plain sailing; the words go into layer_errors.jsonl.
enum class HessianTrouble {
  kNone,
  kDeadInputs,     // channels that were zero on every token; their weights are rounded to nearest
  kFewRows,        // fewer tokens than inputs: the damping decides the rest
  kRankDeficient,  // enough tokens, but inputs that others determine, or more damping needed than asked
  kNonFinite,      // NaN or infinity in the inputs: nothing can be learned from it
  kNoFactor,       // not positive definite under any damping
};
std::string_view hessian_trouble_name(HessianTrouble trouble);

// U with (H + λI)⁻¹ = Uᵀ U in visiting order.
struct HessianFactor {
  at::Tensor upper;          // [I, I] fp32, upper triangular; undefined: no factor, round to nearest instead
  at::Tensor order;          // [I] int64: the column visited i-th
  at::Tensor importance;     // [I] fp32, diagonal of H + λI in the columns' own order: weights of the scale search
  double damp = 0.0;         // λ as a share of H's mean diagonal, as used
  int64_t attempts = 0;      // factorisations tried
  int64_t dead_columns = 0;  // inputs that were zero on every token
  int64_t dependent = 0;     // inputs that the others determine; not counted where few rows make many
  HessianTrouble trouble = HessianTrouble::kNone;
};

// hessian [I, I] double; num_tokens that it was summed over, 0 = not known. Never throws on a bad H: damping rises step
// by step, and at last `upper` stays undefined.
HessianFactor factorize_hessian(const at::Tensor& hessian, QuantOrder order, int64_t group_size, double damp,
                                int64_t num_tokens = 0);

// ‖(W − Q) X‖ / ‖W X‖ from H: the square root of tr((W−Q) H (W−Q)ᵀ) / tr(W H Wᵀ).  weight, quantized [O, I]
double relative_output_error(const at::Tensor& weight, const at::Tensor& quantized, const at::Tensor& hessian);
// The same of several that stand in for one weight.
std::vector<double> relative_output_errors(const at::Tensor& weight, std::span<const at::Tensor> quantized,
                                           const at::Tensor& hessian);

}  // namespace potstill
