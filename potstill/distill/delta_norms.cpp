#include "potstill/distill/delta_norms.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <string_view>

namespace potstill {

at::Tensor spectral_norms(const at::Tensor& x, int rounds) {
  const at::NoGradGuard no_grad;
  const auto columns = x.size(2);
  // Irrational steps: no weight is orthogonal to it by its own regularity.
  at::Tensor v = at::arange(columns, x.options().dtype(at::kFloat)).mul_(0.6180339887).frac_().sub_(0.5);
  v = v.view({1, columns, 1}).expand({x.size(0), columns, 1});
  at::Tensor norm = at::zeros({x.size(0)}, x.options().dtype(at::kFloat));
  for (int round = 0; round < rounds; ++round) {
    v = (v / v.norm(2, {1}, true).clamp_min(1e-30)).to(x.scalar_type());
    const auto xv = at::bmm(x, v);
    norm = xv.to(at::kFloat).norm(2, {1, 2});
    v = at::bmm(x.transpose(1, 2), xv).to(at::kFloat);
  }
  return norm;
}

DeltaNorms::DeltaNorms(const LoraAdapter& adapter, const Transformer& student) {
  const at::NoGradGuard no_grad;
  struct Scales {
    std::vector<double> ratio;
  };
  std::vector<Scales> scales;
  size_t entry = 0;
  for (const DecoderLayer& layer : student.layers) {
    for (const std::string_view name : kLinearNames) {
      const Linear& linear = layer.linear(name);
      if (!linear.lora || entry == adapter.entries.size()) continue;
      const auto& pair = adapter.entries[entry++].pair;
      const auto fits = [&](const Group& g) {
        return g.a.front().sizes() == pair->a.sizes() && g.b.front().sizes() == pair->b.sizes();
      };
      auto group = std::ranges::find_if(groups_, fits);
      if (group == groups_.end()) {
        groups_.emplace_back();
        scales.emplace_back();
        group = std::prev(groups_.end());
      }
      const double weight = spectral_norms(linear.weight.unsqueeze(0)).item<double>();
      group->a.push_back(pair->a.detach());
      group->b.push_back(pair->b.detach());
      scales[static_cast<size_t>(group - groups_.begin())].ratio.push_back(pair->scale / std::max(weight, 1e-30));
    }
  }
  for (size_t i = 0; i < groups_.size(); ++i) groups_[i].scale_over_weight = at::tensor(scales[i].ratio, at::kDouble);
}

double DeltaNorms::largest_ratio() const {
  const at::NoGradGuard no_grad;
  double largest = 0;
  for (const Group& group : groups_) {
    const auto a = at::stack(group.a), b = at::stack(group.b);
    // ||B A||₂² is the largest eigenvalue of (BᵀB)(AAᵀ); with AAᵀ = S Sᵀ that of the symmetric Sᵀ(BᵀB)S.
    const auto gram_a = at::bmm(a, a.transpose(1, 2)).to(at::kDouble);
    const auto gram_b = at::bmm(b.transpose(1, 2), b).to(at::kDouble);
    const auto [values, vectors] = at::linalg_eigh(gram_a);
    const auto root = vectors * values.clamp_min(0).sqrt().unsqueeze(1);
    const auto product = at::bmm(at::bmm(root.transpose(1, 2), gram_b), root);
    const auto norms = at::linalg_eigvalsh(product).select(1, -1).clamp_min(0).sqrt().cpu();
    largest = std::max(largest, (norms * group.scale_over_weight).max().item<double>());
  }
  return largest;
}

}  // namespace potstill
