#include "potstill/quant/fit_linears.h"

#include <utility>

#include "potstill/base/stopwatch.h"

namespace potstill {
namespace {

constexpr int64_t kLeastGroup = 32;  // that every format holds

HessianFactor factorize(const at::Tensor& hessian, int64_t num_tokens, const GridSpec& grid,
                        const QuantizeSettings& settings) {
  return factorize_hessian(hessian, settings.order, grid.group_size, settings.damp, num_tokens);
}

}  // namespace

LinearFit fit_linears(const at::Tensor& stack, const at::Tensor& hessian, const DriftStatistics& statistics,
                      const GridSpec& grid, const QuantizeSettings& settings) {
  LinearFit fit;
  Stopwatch watch;
  fit.factor = factorize(hessian, statistics.num_tokens(), grid, settings);
  fit.seconds_factor = watch.lap();
  AsymmetricTarget target{stack};
  if (settings.asymmetric.largest_strength > 0 && fit.factor.trouble != HessianTrouble::kNonFinite) {
    target = fit_asymmetric_target(stack, statistics, settings.asymmetric);
  }
  fit.strength = target.strength;
  fit.held_out_gain = target.held_out_gain;
  fit.weight = gptq_quantize(target.weight, fit.factor, grid, settings.order).weight;
  fit.seconds_codes = watch.lap();
  if (settings.refine.rounds == 0 || !fit.factor.upper.defined()) return fit;
  auto damped = hessian.to(at::kCPU, at::kFloat);
  damped.diagonal().copy_(fit.factor.importance);
  auto refined = refine(target.weight, fit.weight, damped, settings.refine);
  fit.weight = std::move(refined.weight);
  if (refined.loss_before > 0) fit.refine_gain = 1 - refined.loss_after / refined.loss_before;
  fit.seconds_codes += watch.lap();
  return fit;
}

void measure_remedies(const at::Tensor& weight, const at::Tensor& hessian, const DriftStatistics& statistics,
                      const GridSpec& grid, const QuantizeSettings& settings, const HessianFactor& factor,
                      ModuleRow& row) {
  if (!factor.upper.defined()) return;
  const auto error = [&](const GridSpec& other, const HessianFactor& used, const at::Tensor& seen) {
    return relative_output_error(weight, dequantize(gptq_quantize(weight, used, other, settings.order).weight), seen);
  };
  const auto h = hessian.cpu();
  GridSpec wide = grid, fine = grid;
  wide.bits = 8;
  if (grid.bits < 8) row.error_with_8_bits = error(wide, factor, h);
  fine.group_size = grid.group_size / 2;
  if (fine.group_size >= kLeastGroup) {
    // Only whole groups' order depends on their size.
    const bool same = settings.order != QuantOrder::kGroupAware;
    row.error_with_half_groups =
        error(fine, same ? factor : factorize(hessian, statistics.num_tokens(), fine, settings), h);
  }
  if (!statistics.has_held_out()) return;
  const auto fitted = statistics.fitted_hessian();
  const auto part = factorize(fitted, statistics.num_tokens(), grid, settings);
  if (!part.upper.defined()) return;
  const auto quantized = dequantize(gptq_quantize(weight, part, grid, settings.order).weight);
  row.error_fitted = relative_output_error(weight, quantized, fitted.cpu());
  row.error_held_out = relative_output_error(weight, quantized, statistics.held_out_hessian().cpu());
}

}  // namespace potstill
