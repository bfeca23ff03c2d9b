// AdamW, as torch.optim.AdamW computes it.                                    arXiv:1711.05101
#pragma once

#include <vector>

#include "potstill/optim/optimizer.h"

namespace potstill {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.01;
};

//   m <- b1 m + (1 - b1) g;   v <- b2 v + (1 - b2) g²
//   p <- p (1 - lr · weight_decay) - lr · (m / (1 - b1ᵗ)) / (sqrt(v / (1 - b2ᵗ)) + eps)
class AdamW final : public Optimizer {
 public:
  AdamW(std::vector<at::Tensor> parameters, const AdamWOptions& options);
  void step(double lr) override;
  std::vector<NamedTensor> state() const override;

 private:
  AdamWOptions options_;
  std::vector<at::Tensor> parameters_, first_, second_;  // first_, second_: moments
  at::Tensor num_steps_;                                 // int64 scalar
};

}  // namespace potstill
