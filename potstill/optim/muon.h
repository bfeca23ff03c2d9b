// Muon: momentum whose matrices are orthogonalised before they are applied.    Keller Jordan, 2024; torch.optim.Muon
#pragma once

#include <string>
#include <vector>

#include "potstill/optim/newton_schulz.h"
#include "potstill/optim/optimizer.h"

namespace potstill {

// How the rate depends on a parameter's shape [out, in]. From an AdamW rate n, which moves an entry by 0.2 n to 0.4 n in
// a step (root mean square): an orthogonal direction has entries of 1 / sqrt(max(out, in)), so kMatchRmsAdamw takes n
// itself; kOriginal moves A [r, in] alike at 0.2 n sqrt(in), and B [out, r] then sqrt(in / r) times as far;
// kSpectralUnclamped, whose factor for A is sqrt(r / in), at 0.2 n in / sqrt(r).
enum class MuonScale {
  kOriginal,           // sqrt(max(1, out / in)): an update's spectral norm. LoRA's A gets 1, B gets sqrt(out / r).
  kMatchRmsAdamw,      // 0.2 · sqrt(max(out, in)): entries move about as far as AdamW's at the same rate (Moonlight)
  kSpectralUnclamped,  // sqrt(out / in)
};
MuonScale parse_muon_scale(std::string_view name);  // "original", "match-rms-adamw", "spectral-unclamped"
double muon_scale_factor(MuonScale scale, int64_t out, int64_t in);

struct MuonOptions {
  double momentum = 0.95;
  bool nesterov = true;
  double weight_decay = 0.0;
  MuonScale scale = MuonScale::kOriginal;
  NewtonSchulzOptions newton_schulz = {};
};

//   buf <- momentum · buf + (1 - momentum) · g;   u = nesterov ? momentum · buf + (1 - momentum) · g : buf
//   p <- p · (1 - lr · weight_decay) - lr · scale(p) · NewtonSchulz(u)
// Matrices of one shape are iterated in one batch. A zero gradient with an empty buffer moves nothing.
class Muon final : public Optimizer {
 public:
  // fp32 matrices that require a gradient.
  Muon(std::vector<at::Tensor> parameters, const MuonOptions& options);
  void step(double lr) override;
  std::vector<NamedTensor> state() const override;

 private:
  struct Group {  // parameters of one shape
    std::vector<at::Tensor> parameters;
    at::Tensor momentum;  // [n, out, in]
    double scale = 1;
  };
  MuonOptions options_;
  std::vector<Group> groups_;
};

}  // namespace potstill
