// The one-pass kernels against ATen in double.
#include "potstill/nn/row_kernels.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "potstill/base/rng.h"
#include "potstill/nn/clones.h"
#include "potstill/nn/matmul.h"

namespace potstill {
namespace {

at::Tensor normal(std::vector<int64_t> shape, uint64_t seed, double scale = 1) {
  Rng rng(seed, "test");
  auto tensor = at::empty(shape, at::kFloat);
  for (int64_t i = 0; i < tensor.numel(); ++i) tensor.data_ptr<float>()[i] = static_cast<float>(scale * rng.normal());
  return tensor;
}

double relative_error(const at::Tensor& found, const at::Tensor& exact) {
  return (found.to(at::kDouble) - exact).norm().item<double>() / exact.norm().item<double>();
}

// fp32 sums; bf16 keeps 8 bits: 2⁻⁹ of each value, a few roundings deep.
double tolerance(at::ScalarType type) { return type == at::kFloat ? 1e-6 : 8e-3; }

constexpr at::ScalarType kTypes[] = {at::kFloat, at::kBFloat16};

TEST(LoopExp, IsWithinTwoUlpOverItsRange) {
  for (double x = -87; x <= 88; x += 0.0137) {
    const auto exact = std::exp(static_cast<double>(static_cast<float>(x)));
    EXPECT_NEAR(static_cast<double>(loop_exp(static_cast<float>(x))), exact, 2.4e-7 * exact) << x;
  }
  EXPECT_EQ(loop_exp(0.f), 1.f);
  EXPECT_LT(loop_exp(-1e30f), 2e-38f);
  EXPECT_TRUE(std::isnan(loop_exp(std::nanf(""))));
}

TEST(RowKernels, RmsNormAndItsGradient) {
  for (const auto type : kTypes) {
    for (const int64_t size : {1, 15, 16, 37, 576}) {
      const auto x = normal({5, size}, 1).to(type), weight = normal({size}, 2).to(type),
                 grad = normal({5, size}, 3).to(type);
      const auto x64 = x.to(at::kDouble), w64 = weight.to(at::kDouble), g64 = grad.to(at::kDouble);
      const auto scale = (x64.square().mean(-1, true) + 1e-5).rsqrt();
      at::Tensor rstd;
      EXPECT_LT(relative_error(rms_norm_rows(x, weight, 1e-5, rstd), x64 * scale * w64), tolerance(type)) << size;
      const auto scaled = g64 * w64, unit = x64 * scale;
      const auto exact = (scaled - unit * (scaled * unit).mean(-1, true)) * scale;
      const auto found = rms_norm_rows_backward(grad, x, weight, rstd).to(at::kDouble);
      EXPECT_LT((found - exact).norm().item<double>(), tolerance(type) * (scaled * scale).norm().item<double>())
          << size;
    }
  }
}

TEST(RowKernels, RotationAndBack) {
  const auto angles = normal({9, 4}, 4);
  const auto cos = angles.cos(), sin = angles.sin();
  const auto position = at::tensor(std::vector<int64_t>{0, 3, 8, 1, 1}, at::kLong);
  for (const auto type : kTypes) {
    const auto x = normal({5, 24}, 5).to(type);
    const auto halves = x.to(at::kDouble).view({5, 3, 2, 4});
    const auto a = halves.select(2, 0), b = halves.select(2, 1);
    const auto c = cos.index_select(0, position).unsqueeze(1).to(at::kDouble);
    const auto s = sin.index_select(0, position).unsqueeze(1).to(at::kDouble);
    const auto exact = at::stack({a * c - b * s, b * c + a * s}, 2).view({5, 24});
    const auto turned = rotate_rows(x, cos, sin, position, 1);
    EXPECT_LT(relative_error(turned, exact), tolerance(type));
    EXPECT_LT(relative_error(rotate_rows(turned, cos, sin, position, -1), x.to(at::kDouble)), tolerance(type));
  }
}

TEST(RowKernels, SwigluAndItsGradients) {
  for (const auto type : kTypes) {
    const auto gate = normal({7, 33}, 6, 3).to(type), up = normal({7, 33}, 7).to(type),
               grad = normal({7, 33}, 8).to(type);
    const auto g = gate.to(at::kDouble), u = up.to(at::kDouble), d = grad.to(at::kDouble);
    const auto sigmoid = at::sigmoid(g);
    EXPECT_LT(relative_error(swiglu_rows(gate, up), g * sigmoid * u), tolerance(type));
    at::Tensor grad_gate, grad_up;
    swiglu_rows_backward(grad, gate, up, grad_gate, grad_up);
    EXPECT_LT(relative_error(grad_gate, d * u * sigmoid * (1 + g * (1 - sigmoid))), tolerance(type));
    EXPECT_LT(relative_error(grad_up, d * g * sigmoid), tolerance(type));
  }
}

TEST(Matmul, BothProductsAreRightInEveryLayout) {
  for (const int64_t rows : {1, 2, 67}) {
    const auto x = normal({rows, 48}, 9), w = normal({80, 48}, 10), bias = normal({80}, 11), y = normal({rows, 80}, 12);
    const auto x64 = x.to(at::kDouble), w64 = w.to(at::kDouble);
    EXPECT_LT(relative_error(times_transposed(x, w), at::mm(x64, w64.t())), 1e-6);
    EXPECT_LT(relative_error(times_transposed(x, w, bias), at::mm(x64, w64.t()) + bias.to(at::kDouble)), 1e-6);
    EXPECT_LT(relative_error(times_transposed(x, w.t().contiguous().t()), at::mm(x64, w64.t())), 1e-6);
    EXPECT_LT(relative_error(times(y, w), at::mm(y.to(at::kDouble), w64)), 1e-6);
    EXPECT_LT(relative_error(times(y.t().contiguous().t(), w), at::mm(y.to(at::kDouble), w64)), 1e-6);
  }
}

}  // namespace
}  // namespace potstill
