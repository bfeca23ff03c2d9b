#include "potstill/quant/hessian.h"

#include <algorithm>
#include <cmath>

#include "potstill/base/check.h"
#include "potstill/base/error.h"

namespace potstill {
namespace {

// Columns a block of the upper triangle spans: 60 % of a full product's work at width 1536, in products that BLAS still
// runs at full speed.
constexpr int64_t kBlockColumns = 384;

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
// triangular with H = R Rᵀ, and U = R⁻¹. Undefined when H is not positive definite.
at::Tensor inverse_factor(const at::Tensor& hessian) {
  const auto [lower, info] = at::linalg_cholesky_ex(hessian.flip({0, 1}));
  if (info.item<int>() != 0) return {};
  const auto identity = at::eye(hessian.size(0), hessian.options());
  const auto upper = at::linalg_solve_triangular(lower.flip({0, 1}), identity, /*upper=*/true);
  return at::isfinite(upper).all().item<bool>() ? upper : at::Tensor();
}

}  // namespace

std::string_view hessian_trouble_name(HessianTrouble trouble) {
  switch (trouble) {
    case HessianTrouble::kNone:
      return "none";
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
  const auto x = inputs.to(at::kFloat);
  for (int64_t begin = 0; begin < I; begin += kBlockColumns) {
    const int64_t end = std::min(begin + kBlockColumns, I);
    // fp32 inside a batch, double across batches: the sum does not lose small channels as the corpus grows
    const auto block = at::mm(x.slice(1, begin, end).t(), x.slice(1, begin, I));
    sum_.slice(0, begin, end).slice(1, begin, I).add_(block);
  }
  num_tokens_ += inputs.size(0);
}

at::Tensor HessianAccumulator::finish() const {
  if (num_tokens_ == 0) {
    throw Error(ErrorKind::kInput, "calibration", "no token reached this layer",
                "give calibration text that is not empty");
  }
  const auto upper = sum_.triu();
  return (upper + upper.triu(1).t()).div_(static_cast<double>(num_tokens_));
}

HessianFactor factorize_hessian(const at::Tensor& hessian, QuantOrder order, int64_t group_size, double damp) {
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
  const auto permutation = factor.order.to(hessian.device());
  const auto ordered = hessian.index_select(0, permutation).index_select(1, permutation);
  const auto ordered_diagonal = diagonal.index_select(0, permutation);
  for (const double rise : kDampFactors) {
    factor.damp = damp * rise;
    ++factor.attempts;
    ordered.diagonal().copy_(ordered_diagonal + factor.damp * mean);
    const auto upper = inverse_factor(ordered);
    if (!upper.defined()) continue;
    factor.upper = upper.to(at::kFloat).cpu().contiguous();
    break;
  }
  factor.importance = (diagonal + factor.damp * mean).to(at::kFloat).cpu();
  if (!factor.upper.defined()) factor.trouble = HessianTrouble::kNoFactor;
  if (factor.upper.defined() && factor.attempts > 1) factor.trouble = HessianTrouble::kRankDeficient;
  return factor;
}

double relative_output_error(const at::Tensor& weight, const at::Tensor& quantized, const at::Tensor& hessian) {
  const auto h = hessian.to(at::kFloat);
  const auto squared = [&h](const at::Tensor& w) { return (at::mm(w, h) * w).sum(at::kDouble).item<double>(); };
  const auto w = weight.to(at::kFloat);
  const double signal = squared(w), noise = squared(w - quantized);
  return signal > 0 ? std::sqrt(std::max(noise, 0.0) / signal) : 0.0;
}

}  // namespace potstill
