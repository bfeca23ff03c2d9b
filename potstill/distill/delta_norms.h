// How large a LoRA delta is beside the weight that it changes.
#pragma once

#include <ATen/ATen.h>

#include <vector>

#include "potstill/nn/lora.h"
#include "potstill/nn/transformer.h"

namespace potstill {

// Largest singular value of each matrix of a batch x [n, rows, cols], in fp32 by `rounds` of power iteration on xᵀx
// from a fixed start: from below, within a few percent for weights as models have them.
at::Tensor spectral_norms(const at::Tensor& x, int rounds = 12);

// The spectral norms of an adapter's weights, taken once, and of its deltas whenever they are asked for.
class DeltaNorms {
 public:
  DeltaNorms(const LoraAdapter& adapter, const Transformer& student);
  // ||scale · B A||₂ / ||W||₂, the largest over the linears. The delta is never built: its singular values are those of
  // an r × r matrix.
  double largest_ratio() const;

 private:
  struct Group {  // pairs of one shape
    std::vector<at::Tensor> a, b;
    at::Tensor scale_over_weight;  // [n] fp64
  };
  std::vector<Group> groups_;
};

}  // namespace potstill
