#include "potstill/optim/muon.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "potstill/base/check.h"
#include "potstill/base/error.h"

namespace potstill {
namespace {

at::Tensor stacked_gradients(const std::vector<at::Tensor>& parameters) {
  std::vector<at::Tensor> gradients;
  gradients.reserve(parameters.size());
  for (const auto& parameter : parameters) {
    gradients.push_back(parameter.grad().defined() ? parameter.grad() : at::zeros_like(parameter));
  }
  return at::stack(gradients);
}

}  // namespace

MuonScale parse_muon_scale(std::string_view name) {
  if (name == "original") return MuonScale::kOriginal;
  if (name == "match-rms-adamw") return MuonScale::kMatchRmsAdamw;
  if (name == "spectral-unclamped") return MuonScale::kSpectralUnclamped;
  throw Error(ErrorKind::kUsage, "muon_scale", fmt::format("'{}' is no scale rule", name),
              "original, match-rms-adamw or spectral-unclamped");
}

double muon_scale_factor(MuonScale scale, int64_t out, int64_t in) {
  const auto rows = static_cast<double>(out), cols = static_cast<double>(in);
  switch (scale) {
    case MuonScale::kOriginal:
      return std::sqrt(std::max(1.0, rows / cols));
    case MuonScale::kMatchRmsAdamw:
      return 0.2 * std::sqrt(std::max(rows, cols));
    case MuonScale::kSpectralUnclamped:
      return std::sqrt(rows / cols);
  }
  POTSTILL_CHECK(false);
}

Muon::Muon(std::vector<at::Tensor> parameters, const MuonOptions& options) : options_(options) {
  for (const auto& parameter : parameters) {
    POTSTILL_CHECK(parameter.dim() == 2 && parameter.scalar_type() == at::kFloat);
    auto group = std::ranges::find_if(
        groups_, [&](const Group& g) { return g.parameters.front().sizes() == parameter.sizes(); });
    if (group == groups_.end()) {
      groups_.push_back({.parameters = {},
                         .momentum = {},
                         .scale = muon_scale_factor(options.scale, parameter.size(0), parameter.size(1))});
      group = std::prev(groups_.end());
    }
    group->parameters.push_back(parameter);
  }
  for (Group& group : groups_) {
    const auto& first = group.parameters.front();
    group.momentum =
        at::zeros({static_cast<int64_t>(group.parameters.size()), first.size(0), first.size(1)}, first.options());
    group.momentum.set_requires_grad(false);
  }
}

void Muon::step(double lr) {
  const at::NoGradGuard no_grad;
  double squares = 0;
  int64_t count = 0;
  OrthogonalityError error;
  for (Group& group : groups_) {
    const auto gradients = stacked_gradients(group.parameters);
    group.momentum.lerp_(gradients, 1 - options_.momentum);
    const auto direction = options_.nesterov ? gradients.lerp(group.momentum, options_.momentum) : group.momentum;
    at::Tensor gram;
    const at::Tensor orthogonal = newton_schulz(direction, options_.newton_schulz, &gram);
    error.add(gram);
    const double rate = lr * group.scale;
    count += orthogonal.numel();
    if (options_.weight_decay == 0) {
      at::_foreach_add_(group.parameters, orthogonal.unbind(0), -rate);
      squares += rate * rate * gram.diagonal(0, 1, 2).sum().item<double>();
      continue;
    }
    const at::Tensor update = (orthogonal * -rate).sub(at::stack(group.parameters), lr * options_.weight_decay);
    at::_foreach_add_(group.parameters, update.unbind(0));
    squares += update.square().sum(at::kDouble).item<double>();
  }
  orthogonality_error_ = error.mean();
  update_rms_ = count == 0 ? 0 : std::sqrt(squares / static_cast<double>(count));
}

std::vector<NamedTensor> Muon::state() const {
  std::vector<NamedTensor> tensors;
  for (size_t i = 0; i < groups_.size(); ++i) {
    tensors.push_back({fmt::format("muon.momentum.{}", i), groups_[i].momentum});
  }
  return tensors;
}

}  // namespace potstill
