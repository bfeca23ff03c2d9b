#include "potstill/quant/awq.h"

#include <cmath>
#include <limits>

#include "potstill/base/check.h"

namespace potstill {
namespace {

constexpr int64_t kGrid = 20;  // candidates, plain rounding among them

// Scales of one candidate, so normalised that the geometric mean of the largest and the least is 1.
at::Tensor candidate_scales(const at::Tensor& mean_magnitude, const at::Tensor& weight_means, double ratio, bool duo) {
  auto scales = mean_magnitude.pow(ratio);
  if (duo) scales = scales / (weight_means.pow(1 - ratio) + 1e-4);
  scales = scales.clamp_min(1e-4);
  scales = scales / (scales.max() * scales.min()).sqrt();
  return at::where(at::isfinite(scales), scales, at::ones_like(scales)).to(at::kFloat);
}

}  // namespace

at::Tensor normalised_weight_means(std::span<const at::Tensor> weights, int64_t group_size) {
  POTSTILL_CHECK(!weights.empty());
  const int64_t I = weights.front().size(1);
  auto sum = at::zeros({I}, at::kDouble);
  int64_t rows = 0;
  for (const at::Tensor& weight : weights) {
    POTSTILL_CHECK(weight.size(1) == I && I % group_size == 0);
    const auto groups = weight.to(at::kCPU, at::kFloat).abs().view({weight.size(0), I / group_size, group_size});
    const auto normalised = groups / (groups.amax(2, /*keepdim=*/true) + 1e-6);
    sum += normalised.view({weight.size(0), I}).sum(0, /*keepdim=*/false, at::kDouble);
    rows += weight.size(0);
  }
  return sum / static_cast<double>(rows);
}

AwqScales search_awq_scales(std::span<const at::Tensor> weights, const at::Tensor& mean_magnitude, int64_t group_size,
                            const AwqRounding& rounding, const AwqLoss& loss) {
  const auto magnitude = mean_magnitude.to(at::kCPU, at::kDouble);
  const auto weight_means = normalised_weight_means(weights, group_size);
  AwqScales best{.scales = at::ones({magnitude.size(0)}, at::kFloat)};
  best.error_after = std::numeric_limits<double>::infinity();
  for (int64_t step = 0; step < kGrid; ++step) {
    const bool duo = step > 0;  // step 0: no scaling at all
    const double ratio = duo ? static_cast<double>(step - 1) / static_cast<double>(kGrid - 2) : 0.0;
    const auto scales = candidate_scales(magnitude, weight_means, ratio, duo);
    std::vector<at::Tensor> effective;
    for (const at::Tensor& weight : weights) {
      const auto s = scales.to(weight.device());
      effective.push_back(rounding(weight.to(at::kFloat) * s).to(weight.device()) / s);
    }
    const double error = loss(effective);
    if (step == 0) best.error_before = error;
    if (!(error < best.error_after)) continue;  // NaN is never better
    best.scales = scales;
    best.ratio = ratio;
    best.duo = duo;
    best.error_after = error;
  }
  return best;
}

}  // namespace potstill
