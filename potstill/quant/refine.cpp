#include "potstill/quant/refine.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "potstill/base/check.h"
#include "potstill/base/checked_math.h"
#include "potstill/quant/column_kernels.h"
#include "potstill/quant/parallel.h"

namespace potstill {
namespace {

using quant::kLanes;

constexpr int64_t kRefitBytes = int64_t{64} << 20;  // normal matrices of a chunk of rows

// Rows' losses, [O] double.
at::Tensor row_losses(const at::Tensor& target, const QuantizedWeight& weight, const at::Tensor& hessian) {
  const auto error = target - dequantize(weight);
  return (at::mm(error, hessian) * error).sum(1, /*keepdim=*/false, at::kDouble).mul_(0.5);
}

// [I, O] with the rows padded to whole lanes.
at::Tensor transposed(const at::Tensor& matrix, int64_t padded, double fill) {
  const auto result = at::full({matrix.size(1), padded}, fill, matrix.options());
  result.slice(1, 0, matrix.size(0)).copy_(matrix.t());
  return result;
}

// One sweep over every row; returns the number of codes that moved.
int64_t descend(const at::Tensor& target, QuantizedWeight& weight, const at::Tensor& hessian) {
  const int64_t O = target.size(0), I = target.size(1), padded = round_up(O, kLanes);
  auto gradient = at::zeros({padded, I}, at::kFloat);
  gradient.slice(0, 0, O).copy_(at::mm(target - dequantize(weight), hessian));
  gradient = gradient.view({padded / kLanes, kLanes, I}).permute({0, 2, 1}).contiguous();
  const auto codes = transposed(weight.codes, padded, 0), scales = transposed(weight.scales, padded, 1);
  std::vector<int32_t> group_of(static_cast<size_t>(I));
  for (int64_t i = 0; i < I; ++i) group_of[static_cast<size_t>(i)] = static_cast<int32_t>(i / weight.group_size());
  const quant::ColumnWork work{.rows = padded,
                               .columns = I,
                               .codes = codes.mutable_data_ptr<int8_t>(),
                               .group_of = group_of.data(),
                               .scales = scales.mutable_data_ptr<float>(),
                               .range = {weight.bits == 8 ? -128.0f : -8.0f, weight.bits == 8 ? 127.0f : 7.0f}};
  std::atomic<int64_t> moved{0};
  quant::for_each_chunk(padded / kLanes, [&](int64_t i) {
    moved += quant::descend_codes(work, hessian.const_data_ptr<float>(),
                                  gradient.mutable_data_ptr<float>() + i * I * kLanes, i * kLanes);
  });
  weight.codes = codes.slice(1, 0, O).t().contiguous();
  return moved;
}

// Scales [O, groups] that minimise each row's loss for fixed codes: with z = code − zero,
//   A_ab = z_aᵀ H_ab z_b,  r_a = z_aᵀ H_a: w,  s = A⁻¹ r
at::Tensor least_squares_scales(const at::Tensor& target, const QuantizedWeight& weight, const at::Tensor& hessian) {
  const int64_t O = target.size(0), I = target.size(1), groups = weight.scales.size(1), g = I / groups;
  const auto steps = (weight.codes.to(at::kFloat).view({O, groups, g}) - weight.zeros.to(at::kFloat).unsqueeze(2));
  const auto right = (at::mm(target, hessian).view({O, groups, g}) * steps).sum(2, /*keepdim=*/false, at::kDouble);
  const auto normal = at::empty({O, groups, groups}, at::kDouble);
  for (int64_t a = 0; a < groups; ++a) {
    const auto product = at::mm(steps.select(1, a), hessian.slice(0, a * g, (a + 1) * g)).view({O, groups, g});
    normal.select(1, a).copy_((product * steps).sum(2));
  }
  const auto diagonal = normal.diagonal(0, 1, 2);
  // a group whose codes are all zero has no say: its scale stays
  const auto silent = diagonal <= 0;
  diagonal.add_(diagonal.mean(1, /*keepdim=*/true) * 1e-9 + silent.to(at::kDouble));
  const auto [factor, info] = at::linalg_cholesky_ex(normal);
  const auto solved = at::cholesky_solve(right.unsqueeze(2), factor).squeeze(2);
  const auto usable = (info == 0).unsqueeze(1).logical_and(silent.logical_not()).logical_and(at::isfinite(solved));
  return at::where(usable, solved, weight.scales.to(at::kDouble));
}

// As a file stores it: the nearest fp16 value, finite and not zero.
at::Tensor as_stored(const at::Tensor& scales) {
  const auto magnitude = scales.abs().to(at::kHalf).to(at::kFloat).clamp(0x1p-24, 65504.0);
  return at::where(scales < 0, -magnitude, magnitude);
}

// Takes the refitted scales in the rows that gain by them.
void refit(const at::Tensor& target, QuantizedWeight& weight, const at::Tensor& hessian) {
  const int64_t O = target.size(0), groups = weight.scales.size(1);
  const int64_t chunk = std::max<int64_t>(kLanes, kRefitBytes / (groups * groups * 8));
  for (int64_t begin = 0; begin < O; begin += chunk) {
    const int64_t end = std::min(begin + chunk, O);
    const auto old = slice_rows(weight, begin, end);
    auto fitted = old;
    const auto wanted = target.slice(0, begin, end);
    fitted.scales = as_stored(least_squares_scales(wanted, old, hessian)).contiguous();
    const auto better = row_losses(wanted, fitted, hessian) < row_losses(wanted, old, hessian);
    weight.scales.slice(0, begin, end).copy_(at::where(better.unsqueeze(1), fitted.scales, old.scales));
  }
}

}  // namespace

RefineResult refine(const at::Tensor& target, const QuantizedWeight& weight, const at::Tensor& damped_hessian,
                    const RefineOptions& options) {
  POTSTILL_CHECK(target.dim() == 2 && target.sizes() == weight.codes.sizes());
  POTSTILL_CHECK(damped_hessian.size(0) == target.size(1) && damped_hessian.size(1) == target.size(1));
  const auto wanted = target.to(at::kFloat).contiguous();
  const auto hessian = damped_hessian.to(at::kCPU, at::kFloat).contiguous();
  RefineResult result{{weight.codes.clone(), weight.scales.clone(), weight.zeros, weight.symmetric, weight.bits}};
  const auto before = row_losses(wanted, weight, hessian);
  result.loss_before = before.sum().item<double>();
  for (int64_t round = 0; round < options.rounds; ++round) {
    if (options.refit_scales) refit(wanted, result.weight, hessian);
    const int64_t moved = descend(wanted, result.weight, hessian);
    result.moved_codes += moved;
    if (moved == 0) break;
  }
  if (options.refit_scales && options.rounds > 0) refit(wanted, result.weight, hessian);
  result.loss_after = row_losses(wanted, result.weight, hessian).sum().item<double>();
  return result;
}

}  // namespace potstill
