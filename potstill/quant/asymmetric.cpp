#include "potstill/quant/asymmetric.h"

#include <algorithm>

#include "potstill/base/check.h"

namespace potstill {
namespace {

// Σ over all entries of a ∘ b, in double.
double entry_product(const at::Tensor& a, const at::Tensor& b) { return (a * b).sum(at::kDouble).item<double>(); }

// W D (H + λI)⁻¹ [O, I]; undefined when the system cannot be solved.
at::Tensor correction(const at::Tensor& weight, const at::Tensor& drift, const at::Tensor& hessian, double damp) {
  auto damped = hessian.clone();
  damped.diagonal().add_(damp * hessian.diagonal().mean().item<double>());
  const auto [factor, info] = at::linalg_cholesky_ex(damped);
  if (info.item<int>() != 0) return {};
  const auto right = at::mm(weight, drift).to(at::kDouble);  // [O, I]
  const auto solved = at::cholesky_solve(right.t(), factor).t().to(at::kFloat).contiguous();
  return at::isfinite(solved).all().item<bool>() ? solved : at::Tensor();
}

}  // namespace

DriftStatistics::DriftStatistics(int64_t width, at::Device device) : fitted_(width, device) {}

void DriftStatistics::add(const at::Tensor& reference, const at::Tensor& inputs, bool held_out) {
  if (held_out && !held_out_) held_out_.emplace(inputs.size(1), inputs.device());
  (held_out ? *held_out_ : fitted_).add(inputs);
  if (!reference.defined()) return;
  const auto x = inputs.to(at::kFloat);
  POTSTILL_CHECK(reference.sizes() == inputs.sizes());
  auto& drift = held_out ? held_out_drift_ : fitted_drift_;
  if (!drift.defined()) drift = at::zeros({x.size(1), x.size(1)}, x.options());
  drift.addmm_((reference.to(at::kFloat) - x).t(), x);
}

int64_t DriftStatistics::num_tokens() const { return fitted_.num_tokens() + (held_out_ ? held_out_->num_tokens() : 0); }

at::Tensor DriftStatistics::hessian() const { return fitted_.finish(held_out_ ? &*held_out_ : nullptr); }

AsymmetricTarget fit_asymmetric_target(const at::Tensor& weight, const DriftStatistics& statistics,
                                       const AsymmetricOptions& options) {
  AsymmetricTarget target{weight.to(at::kFloat)};
  POTSTILL_CHECK(statistics.fitted_drift_.defined());
  const auto w = target.weight.to(statistics.fitted_drift_.device());
  const auto fitted_tokens = static_cast<double>(statistics.fitted_.num_tokens());
  const auto held_out_tokens =
      statistics.has_held_out() ? static_cast<double>(statistics.held_out_->num_tokens()) : 0.0;
  double strength = options.largest_strength / 2;
  if (held_out_tokens > 0) {
    // The error on held-out tokens is a parabola in the strength: its bottom is where the correction still helps there.
    const auto step =
        correction(w, statistics.fitted_drift_ / fitted_tokens, statistics.fitted_.finish(), options.damp);
    if (!step.defined()) return target;
    const auto hessian = statistics.held_out_->finish().to(at::kFloat);
    const double slope = entry_product(at::mm(w, statistics.held_out_drift_ / held_out_tokens), step);
    const double curvature = entry_product(at::mm(step, hessian), step);
    if (!(curvature > 0)) return target;
    strength = std::clamp(slope / curvature, 0.0, 1.0) * options.largest_strength;
    target.held_out_gain = (2 * strength * slope - strength * strength * curvature) /
                           std::max(entry_product(at::mm(w, hessian), w), 1e-30);
  }
  auto all_drift = statistics.fitted_drift_.clone();
  if (held_out_tokens > 0) all_drift.add_(statistics.held_out_drift_);
  all_drift.div_(fitted_tokens + held_out_tokens);
  const auto step = correction(w, all_drift, statistics.hessian(), options.damp);
  if (!step.defined()) return target;
  target.strength = strength;
  target.weight = (w + strength * step).cpu();
  return target;
}

}  // namespace potstill
