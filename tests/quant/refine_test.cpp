// Refinement after GPTQ, asymmetric targets and what is measured of a linear's inputs, on drawn layers.
#include "potstill/quant/refine.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "potstill/quant/asymmetric.h"
#include "potstill/quant/gptq.h"

namespace potstill {
namespace {

constexpr int64_t kRows = 20, kColumns = 96, kTokens = 400;  // rows that do not fill the lanes

at::Tensor drawn(at::IntArrayRef shape, uint64_t seed) {
  at::manual_seed(seed);
  return at::randn(shape);
}

// Inputs whose channels lean on each other and differ in size.
at::Tensor drawn_inputs(int64_t tokens, uint64_t seed) {
  const auto mix = at::eye(kColumns) + 0.15 * drawn({kColumns, kColumns}, 11);
  const auto gains = at::exp(0.8 * drawn({kColumns}, 12));
  return at::mm(drawn({tokens, kColumns}, seed), mix) * gains;
}

at::Tensor second_moment(const at::Tensor& x) {
  return at::mm(x.t(), x).to(at::kDouble) / static_cast<double>(x.size(0));
}

double damped_loss(const at::Tensor& weight, const QuantizedWeight& quantized, const at::Tensor& hessian) {
  const auto error = (weight - dequantize(quantized)).to(at::kDouble);
  return 0.5 * (at::mm(error, hessian.to(at::kDouble)) * error).sum().item<double>();
}

struct Case {
  at::Tensor weight = drawn({kRows, kColumns}, 1);
  at::Tensor hessian = second_moment(drawn_inputs(kTokens, 2));
  at::Tensor damped;
  QuantizedWeight gptq;

  explicit Case(bool symmetric) {
    const GridSpec grid{.group_size = 32, .symmetric = symmetric, .clip = ClipRule::kHessian};
    const auto factor = factorize_hessian(hessian, QuantOrder::kStatic, 32, 0.01);
    gptq = gptq_quantize(weight, factor, grid, QuantOrder::kStatic).weight;
    damped = hessian.to(at::kFloat);
    damped.diagonal().copy_(factor.importance);
  }
};

TEST(Refine, LowersTheLossAndReportsItRightly) {
  for (const bool symmetric : {true, false}) {
    const Case layer(symmetric);
    const auto refined = refine(layer.weight, layer.gptq, layer.damped, {.rounds = 3});
    EXPECT_NEAR(refined.loss_before, damped_loss(layer.weight, layer.gptq, layer.damped), 1e-4 * refined.loss_before);
    EXPECT_NEAR(refined.loss_after, damped_loss(layer.weight, refined.weight, layer.damped), 1e-4 * refined.loss_after);
    EXPECT_LT(refined.loss_after, 0.99 * refined.loss_before);
    EXPECT_GT(refined.moved_codes, 0);
    EXPECT_TRUE(at::equal(refined.weight.zeros, layer.gptq.zeros));
    const auto& codes = refined.weight.codes;
    EXPECT_GE(codes.min().item<int>(), -8);
    EXPECT_LE(codes.max().item<int>(), 7);
    // as files store them: finite fp16 values other than zero
    const auto& scales = refined.weight.scales;
    EXPECT_TRUE(at::equal(scales.to(at::kHalf).to(at::kFloat), scales));
    EXPECT_GT(scales.abs().min().item<float>(), 0.0f);
  }
}

TEST(Refine, NeverRaisesTheLossOfAnyRow) {
  const Case layer(true);
  for (const bool refit : {false, true}) {
    const auto refined = refine(layer.weight, layer.gptq, layer.damped, {.rounds = 2, .refit_scales = refit}).weight;
    for (int64_t row = 0; row < kRows; ++row) {
      const auto weight = layer.weight.slice(0, row, row + 1);
      EXPECT_LE(damped_loss(weight, slice_rows(refined, row, row + 1), layer.damped),
                damped_loss(weight, slice_rows(layer.gptq, row, row + 1), layer.damped) * (1 + 1e-5))
          << row;
    }
  }
}

// After a sweep that moves nothing, no code has a neighbour that is better: tried out one by one.
TEST(Refine, EndsWhereNoSingleCodeCanGain) {
  const Case layer(true);
  auto refined = refine(layer.weight, layer.gptq, layer.damped, {.rounds = 50, .refit_scales = false}).weight;
  const auto row = slice_rows(refined, 3, 4);
  const auto weight = layer.weight.slice(0, 3, 4);
  const double loss = damped_loss(weight, row, layer.damped);
  for (int64_t i = 0; i < kColumns; ++i) {
    for (const int step : {-1, 1}) {
      auto other = row;
      other.codes = row.codes.clone();
      const int code = other.codes[0][i].item<int>() + step;
      if (code < -8 || code > 7) continue;
      other.codes[0][i] = code;
      EXPECT_GE(damped_loss(weight, other, layer.damped), loss * (1 - 1e-5)) << i;
    }
  }
}

TEST(Refine, LeavesAnExactGridAlone) {
  const Case layer(true);
  const auto refined = refine(dequantize(layer.gptq), layer.gptq, layer.damped, {.rounds = 2});
  EXPECT_EQ(refined.moved_codes, 0);
  EXPECT_TRUE(at::equal(dequantize(refined.weight), dequantize(layer.gptq)));
}

TEST(Asymmetric, WithoutDriftTheTargetIsTheWeight) {
  DriftStatistics statistics(kColumns, at::kCPU);
  const auto x = drawn_inputs(kTokens, 2);
  statistics.add(x, x, false);
  statistics.add(x, x, true);
  const auto weight = drawn({kRows, kColumns}, 1);
  const auto target = fit_asymmetric_target(weight, statistics, {});
  EXPECT_TRUE(at::equal(target.weight, weight));
  EXPECT_EQ(target.strength, 0.0);
}

// Drift that is linear in the inputs can be made up for: X̃ = X M, so W* = W Mᵀ, which the held-out tokens confirm.
TEST(Asymmetric, FindsACorrectionThatHeldOutTokensConfirm) {
  DriftStatistics statistics(kColumns, at::kCPU);
  const auto m = at::eye(kColumns) + 0.05 * drawn({kColumns, kColumns}, 5);
  const auto fitted = drawn_inputs(kTokens, 2), held_out = drawn_inputs(kTokens / 4, 3), fresh = drawn_inputs(200, 4);
  statistics.add(at::mm(fitted, m), fitted, false);
  statistics.add(at::mm(held_out, m), held_out, true);
  const auto weight = drawn({kRows, kColumns}, 1);
  const auto target = fit_asymmetric_target(weight, statistics, {.largest_strength = 1.0, .damp = 1e-6});
  EXPECT_GT(target.strength, 0.99);
  EXPECT_GT(target.held_out_gain, 0.0);
  const auto error = [&](const at::Tensor& w) {
    return (at::mm(fresh, w.t()) - at::mm(at::mm(fresh, m), weight.t())).norm().item<double>();
  };
  EXPECT_LT(error(target.weight), 0.05 * error(weight));
  EXPECT_TRUE(at::allclose(statistics.hessian(), second_moment(at::cat({fitted, held_out})), 1e-4, 1e-4));
}

// Drift that has nothing to do with the inputs only looks correctable on the tokens that it was fitted to.
TEST(Asymmetric, GivesLittleStrengthToWhatHeldOutTokensDeny) {
  DriftStatistics statistics(kColumns, at::kCPU);
  const auto fitted = drawn_inputs(120, 2), held_out = drawn_inputs(400, 3);  // few tokens: W* overfits
  statistics.add(fitted + drawn(fitted.sizes(), 6), fitted, false);
  statistics.add(held_out + drawn(held_out.sizes(), 7), held_out, true);
  const auto target =
      fit_asymmetric_target(drawn({kRows, kColumns}, 1), statistics, {.largest_strength = 1.0, .damp = 1e-3});
  EXPECT_LT(target.strength, 0.1);
}

TEST(Asymmetric, NonFiniteDriftGivesTheWeightBack) {
  DriftStatistics statistics(kColumns, at::kCPU);
  const auto x = drawn_inputs(kTokens, 2);
  statistics.add(x * std::numeric_limits<float>::infinity(), x, false);
  const auto weight = drawn({kRows, kColumns}, 1);
  EXPECT_TRUE(at::equal(fit_asymmetric_target(weight, statistics, {}).weight, weight));
}

}  // namespace
}  // namespace potstill
