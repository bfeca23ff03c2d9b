#include "potstill/optim/lora_muon.h"

#include <ATen/ops/linalg_eigh.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "potstill/base/check.h"

namespace potstill {
namespace {

at::Tensor stacked_gradients(const std::vector<at::Tensor>& parameters) {
  std::vector<at::Tensor> gradients;
  for (const auto& parameter : parameters) {
    gradients.push_back(parameter.grad().defined() ? parameter.grad() : at::zeros_like(parameter));
  }
  return at::stack(gradients);
}

// x [n, r, r] symmetric, fp64 -> (x + damping · mean diagonal · I)^-½, fp32; of a zero matrix, zero.
at::Tensor inverse_root(const at::Tensor& x, double damping) {
  const auto mean = x.diagonal(0, 1, 2).mean(-1).view({-1, 1});
  const auto [values, vectors] = at::linalg_eigh(x);
  const auto root = values.clamp_min(0).add(mean * damping).rsqrt();
  const auto weights = at::where(mean > 0, root, at::zeros_like(root));
  return at::bmm(vectors * weights.unsqueeze(1), vectors.transpose(1, 2)).to(at::kFloat);
}

}  // namespace

LoraMuon::LoraMuon(std::vector<at::Tensor> parameters, const LoraMuonOptions& options) : options_(options) {
  POTSTILL_CHECK(parameters.size() % 2 == 0);
  for (size_t i = 0; i < parameters.size(); i += 2) {
    const auto &a = parameters[i], &b = parameters[i + 1];
    POTSTILL_CHECK(a.dim() == 2 && b.dim() == 2 && a.size(0) == b.size(1) && a.scalar_type() == at::kFloat);
    auto group = std::ranges::find_if(
        groups_, [&](const Group& g) { return g.a.front().sizes() == a.sizes() && g.b.front().sizes() == b.sizes(); });
    if (group == groups_.end()) group = groups_.insert(groups_.end(), Group{});
    group->a.push_back(a);
    group->b.push_back(b);
  }
  for (Group& group : groups_) {
    const auto zeros = [](const std::vector<at::Tensor>& parameters_of) {
      const auto& first = parameters_of.front();
      const auto n = static_cast<int64_t>(parameters_of.size());
      return at::zeros({n, first.size(0), first.size(1)}, first.options().requires_grad(false));
    };
    group.momentum_a = zeros(group.a);
    group.momentum_b = zeros(group.b);
  }
}

void LoraMuon::step(double lr) {
  const at::NoGradGuard no_grad;
  double squares = 0;
  int64_t count = 0;
  OrthogonalityError error;
  const auto direction = [&](at::Tensor& momentum, const std::vector<at::Tensor>& parameters) {
    const auto gradients = stacked_gradients(parameters);
    momentum.lerp_(gradients, 1 - options_.momentum);
    return gradients.lerp(momentum, options_.momentum);
  };
  const auto apply = [&](const std::vector<at::Tensor>& parameters, const at::Tensor& current, at::Tensor update) {
    if (options_.weight_decay != 0) update = update.sub(current, 0.5 * lr * options_.weight_decay);
    at::_foreach_add_(parameters, update.unbind(0));
    squares += update.square().sum(at::kDouble).item<double>();
    count += update.numel();
  };
  for (Group& group : groups_) {
    const auto a = at::stack(group.a), b = at::stack(group.b);
    const auto a64 = a.to(at::kDouble), b64 = b.to(at::kDouble);
    const auto root_a = inverse_root(at::bmm(a64, a64.transpose(1, 2)), options_.damping);
    const auto root_b = inverse_root(at::bmm(b64.transpose(1, 2), b64), options_.damping);
    const auto u_a = direction(group.momentum_a, group.a), u_b = direction(group.momentum_b, group.b);
    at::Tensor gram_b, gram_a;
    const auto orthogonal_b = newton_schulz(at::bmm(u_b, root_a), options_.newton_schulz, &gram_b);
    const auto orthogonal_a = newton_schulz(at::bmm(root_b, u_a), options_.newton_schulz, &gram_a);
    error.add(gram_b);
    error.add(gram_a);
    const auto step_b = at::bmm(orthogonal_b, root_a), step_a = at::bmm(root_b, orthogonal_a);
    apply(group.b, b, step_b * (-0.5 * lr));
    apply(group.a, a, step_a * (-0.5 * lr));
  }
  orthogonality_error_ = error.mean();
  update_rms_ = count == 0 ? 0 : std::sqrt(squares / static_cast<double>(count));
}

std::vector<NamedTensor> LoraMuon::state() const {
  std::vector<NamedTensor> tensors;
  for (size_t i = 0; i < groups_.size(); ++i) {
    tensors.push_back({fmt::format("lora_muon.momentum_a.{}", i), groups_[i].momentum_a});
    tensors.push_back({fmt::format("lora_muon.momentum_b.{}", i), groups_[i].momentum_b});
  }
  return tensors;
}

}  // namespace potstill
