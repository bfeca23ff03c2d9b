#include "potstill/quant/hessian.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "potstill/base/check.h"
#include "potstill/base/error.h"
#include "potstill/quant/gram.h"

namespace potstill {
namespace {

// Damping tried after the one asked for, as multiples of it: 0.01 rises to 10 times the mean diagonal.
constexpr double kDampFactors[] = {1, 3, 10, 30, 100, 1000};

// The visiting order. Ties keep the columns' own order, so that it is the same everywhere.
at::Tensor visiting_order(const at::Tensor& diagonal, QuantOrder order, int64_t group_size) {
  const int64_t I = diagonal.size(0);
  if (order == QuantOrder::kNone) return at::arange(I, at::kLong);
  const auto argsort = [](const at::Tensor& keys, int64_t dim) {
    return keys.argsort(/*stable=*/true, dim, /*descending=*/true);
  };
  if (order == QuantOrder::kStatic) return argsort(diagonal, 0);
  const auto grouped = diagonal.view({I / group_size, group_size});
  const auto columns = argsort(grouped, 1) + at::arange(0, I, group_size).unsqueeze(1);  // sorted inside each group
  return columns.index_select(0, argsort(grouped.amax(1), 0)).reshape({I});
}

// U with H⁻¹ = Uᵀ U, by one Cholesky and no inverse: with both axes reversed H = L Lᵀ, so R = L reversed is upper
// triangular with H = R Rᵀ, and U = R⁻¹. Undefined when H is not positive definite. Takes H reversed, and lets each
// matrix go before the next is made: at width 8192 one is half a gigabyte.
at::Tensor inverse_factor(at::Tensor reversed) {
  auto [lower, info] = at::linalg_cholesky_ex(reversed);
  reversed.reset();
  if (info.item<int>() != 0) return {};
  const auto root = lower.flip({0, 1});
  lower.reset();
  const auto upper = at::linalg_solve_triangular(root, at::eye(root.size(0), root.options()), /*upper=*/true);
  return at::isfinite(upper.sum()).item<bool>() ? upper : at::Tensor();
}

// Inputs of which the others say all but 10⁻⁵ of the variance. The Hessian was summed in fp32, whose noise may make an
// exact copy look like −10⁻⁷ of itself: 10⁻⁶ of each diagonal is added first. A factorisation that fails all the same
// counts as one such input.
int64_t count_dependent(const at::Tensor& hessian, const at::Tensor& diagonal) {
  auto nudged = hessian.clone();
  nudged.diagonal().copy_(diagonal * (1 + 1e-6));
  const auto [lower, info] = at::linalg_cholesky_ex(nudged);
  if (info.item<int>() != 0) return 1;
  return (lower.diagonal().square() < 1e-5 * diagonal).sum().item<int64_t>();
}

HessianTrouble trouble_of(const HessianFactor& factor, int64_t width, int64_t num_tokens) {
  if (!factor.upper.defined()) return HessianTrouble::kNoFactor;
  if (num_tokens > 0 && num_tokens < width) return HessianTrouble::kFewRows;
  if (factor.attempts > 1 || factor.dependent > 0) return HessianTrouble::kRankDeficient;
  return factor.dead_columns > 0 ? HessianTrouble::kDeadInputs : HessianTrouble::kNone;
}

}  // namespace

std::string_view hessian_trouble_name(HessianTrouble trouble) {
  switch (trouble) {
    case HessianTrouble::kNone:
      return "none";
    case HessianTrouble::kDeadInputs:
      return "dead-inputs";
    case HessianTrouble::kFewRows:
      return "few-rows";
    case HessianTrouble::kRankDeficient:
      return "rank-deficient";
    case HessianTrouble::kNonFinite:
      return "non-finite";
    case HessianTrouble::kNoFactor:
      return "no-factor";
  }
  return "";
}

HessianAccumulator::HessianAccumulator(int64_t width, at::Device device)
    : sum_(at::zeros({width, width}, at::TensorOptions(at::kDouble).device(device))) {}

void HessianAccumulator::add(const at::Tensor& inputs) {
  const int64_t I = sum_.size(0);
  POTSTILL_CHECK(inputs.dim() == 2 && inputs.size(1) == I);
  quant::add_gram(inputs, sum_);
  num_tokens_ += inputs.size(0);
}

at::Tensor HessianAccumulator::finish(const HessianAccumulator* more) const {
  const int64_t num_tokens = num_tokens_ + (more ? more->num_tokens_ : 0);
  if (num_tokens == 0) {
    throw Error(ErrorKind::kInput, "calibration", "no token reached this layer",
                "give calibration text that is not empty");
  }
  auto full = more ? at::add(sum_, more->sum_).triu_() : sum_.triu();
  full.add_(full.triu(1).t());
  return full.div_(static_cast<double>(num_tokens));
}

HessianFactor factorize_hessian(const at::Tensor& hessian, QuantOrder order, int64_t group_size, double damp,
                                int64_t num_tokens) {
  POTSTILL_CHECK(hessian.dim() == 2 && hessian.size(0) == hessian.size(1) && hessian.size(0) % group_size == 0);
  const int64_t I = hessian.size(0);
  HessianFactor factor;
  factor.order = at::arange(I, at::kLong);
  factor.importance = at::ones({I}, at::kFloat);
  if (!at::isfinite(hessian).all().item<bool>()) {
    factor.trouble = HessianTrouble::kNonFinite;
    return factor;
  }
  // A dead input keeps its weights, rounded to nearest: a one on its diagonal and zeros beside it cut it loose.
  const auto diagonal = hessian.diagonal().clone();
  const auto dead = diagonal <= 0;
  factor.dead_columns = dead.sum().item<int64_t>();
  const auto alive = diagonal.masked_select(dead.logical_not());
  const double mean = alive.numel() > 0 ? alive.mean().item<double>() : 1.0;
  diagonal.masked_fill_(dead, mean);

  factor.order = visiting_order(diagonal.cpu(), order, group_size);
  const auto backwards = factor.order.flip(0).to(hessian.device());
  const auto reversed_diagonal = diagonal.index_select(0, backwards);
  for (const double rise : kDampFactors) {
    factor.damp = damp * rise;
    ++factor.attempts;
    auto reversed = hessian.index_select(0, backwards).index_select(1, backwards);
    reversed.diagonal().copy_(reversed_diagonal + factor.damp * mean);
    const auto upper = inverse_factor(std::move(reversed));
    if (!upper.defined()) continue;
    factor.upper = upper.to(at::kFloat).cpu().contiguous();
    break;
  }
  if (factor.upper.defined() && (num_tokens == 0 || num_tokens >= I)) {
    factor.dependent = count_dependent(hessian, diagonal);
  }
  factor.importance = (diagonal + factor.damp * mean).to(at::kFloat).cpu();
  factor.trouble = trouble_of(factor, I, num_tokens);
  return factor;
}

double relative_output_error(const at::Tensor& weight, const at::Tensor& quantized, const at::Tensor& hessian) {
  return relative_output_errors(weight, std::span(&quantized, 1), hessian).front();
}

std::vector<double> relative_output_errors(const at::Tensor& weight, std::span<const at::Tensor> quantized,
                                           const at::Tensor& hessian) {
  const auto h = hessian.to(at::kFloat);
  const auto squared = [&h](const at::Tensor& w) { return (at::mm(w, h) * w).sum(at::kDouble).item<double>(); };
  const auto w = weight.to(at::kFloat);
  const double signal = squared(w);
  std::vector<double> errors;
  for (const auto& q : quantized) {
    errors.push_back(signal > 0 ? std::sqrt(std::max(squared(w - q), 0.0) / signal) : 0.0);
  }
  return errors;
}

}  // namespace potstill
