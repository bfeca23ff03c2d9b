// LoRA-Muon: one spectral step on the product B·A instead of one on each factor.            arXiv:2606.12921
#pragma once

#include <vector>

#include "potstill/optim/newton_schulz.h"
#include "potstill/optim/optimizer.h"

namespace potstill {

struct LoraMuonOptions {
  double momentum = 0.95;
  double weight_decay = 0.0;  // of the product: each factor takes half
  double damping = 1e-6;      // added to a factor's Gram matrix, as a share of its mean diagonal
  NewtonSchulzOptions newton_schulz = {};
};

// With u the (Nesterov) momentum of each factor's gradient, S_A = A Aᵀ and S_B = Bᵀ B:
//   B <- B (1 - lr wd / 2) - (lr / 2) msign(u_B S_A^-½) S_A^-½       so that ‖dB A‖₂ = lr / 2
//   A <- A (1 - lr wd / 2) - (lr / 2) S_B^-½ msign(S_B^-½ u_A)       so that ‖B dA‖₂ = lr / 2
// lr is the spectral norm of the change of B·A, half of it through each factor: it means the same at every rank, and
// scaling B by c and A by 1/c changes nothing. A gradient of zero (A's while B = 0) moves nothing.
class LoraMuon final : public Optimizer {
 public:
  // a [r, I], b [O, r] in turn, fp32: lora_parameters()' order.
  LoraMuon(std::vector<at::Tensor> parameters, const LoraMuonOptions& options);
  void step(double lr) override;
  std::vector<NamedTensor> state() const override;

 private:
  struct Group {  // pairs of one shape
    std::vector<at::Tensor> a, b;
    at::Tensor momentum_a, momentum_b;
  };
  LoraMuonOptions options_;
  std::vector<Group> groups_;
};

}  // namespace potstill
