#include "potstill/optim/lora_muon.h"

#include <ATen/ops/linalg_svdvals.h>
#include <gtest/gtest.h>

#include "potstill/base/rng.h"

namespace potstill {
namespace {

at::Tensor normal(int64_t rows, int64_t cols, uint64_t seed, double scale = 1) {
  Rng rng(seed, "test");
  auto tensor = at::empty({rows, cols}, at::kFloat);
  for (int64_t i = 0; i < tensor.numel(); ++i) tensor.data_ptr<float>()[i] = static_cast<float>(scale * rng.normal());
  return tensor;
}

// Factors of one linear with gradients that the chain rule gives for dL/dW: G_A = Bᵀ G, G_B = G Aᵀ.
struct Factors {
  at::Tensor a, b;
  Factors(double c, double b_scale = 0.1) {
    const auto plain_a = normal(4, 30, 1), plain_b = normal(20, 4, 2, b_scale), g = normal(20, 30, 3);
    a = (plain_a * c).set_requires_grad(true);
    b = (plain_b / c).set_requires_grad(true);
    a.mutable_grad() = at::mm(b.detach().t(), g);
    b.mutable_grad() = at::mm(g, a.detach().t());
  }
  at::Tensor product() const { return at::mm(b.detach(), a.detach()); }
};

double spectral_norm(const at::Tensor& x) { return at::linalg_svdvals(x).max().item<double>(); }

TEST(LoraMuon, MovesTheProductByTheRateHalfThroughEachFactor) {
  Factors factors(1.0);
  const auto a = factors.a.detach().clone(), b = factors.b.detach().clone();
  LoraMuon optimizer({factors.a, factors.b}, {.momentum = 0.0});
  optimizer.step(0.02);
  // Newton–Schulz brings singular values to 0.68 … 1.2, not to 1.
  const double through_b = spectral_norm(at::mm(factors.b.detach() - b, a));
  const double through_a = spectral_norm(at::mm(b, factors.a.detach() - a));
  EXPECT_GT(through_b, 0.68 * 0.01);
  EXPECT_LT(through_b, 1.25 * 0.01);
  EXPECT_GT(through_a, 0.68 * 0.01);
  EXPECT_LT(through_a, 1.25 * 0.01);
  EXPECT_GT(optimizer.update_rms(), 0);
}

TEST(LoraMuon, DoesNotCareHowTheProductIsSplit) {
  Factors plain(1.0), scaled(32.0);
  const auto before = plain.product();
  for (Factors* factors : {&plain, &scaled}) LoraMuon({factors->a, factors->b}, {}).step(0.01);
  const auto moved = plain.product() - before, moved_too = scaled.product() - before;
  EXPECT_LT((moved - moved_too).norm().item<double>(), 1e-3 * moved.norm().item<double>());
}

TEST(LoraMuon, LeavesAAloneWhileBIsZero) {
  Factors factors(1.0, /*b_scale=*/0.0);
  const auto a = factors.a.detach().clone();
  LoraMuon optimizer({factors.a, factors.b}, {});
  optimizer.step(0.01);
  EXPECT_TRUE(factors.a.detach().equal(a));
  EXPECT_TRUE(factors.b.detach().isfinite().all().item<bool>());
  EXPECT_GT(factors.b.detach().norm().item<double>(), 0);
}

TEST(LoraMuon, GoesOnFromItsStateAsIfNothingHadHappened) {
  Factors through(1.0), stopped(1.0);
  LoraMuon whole({through.a, through.b}, {}), first({stopped.a, stopped.b}, {}), second({stopped.a, stopped.b}, {});
  whole.step(0.01);
  whole.step(0.01);
  first.step(0.01);
  second.load_state(first.state(), "test");
  second.step(0.01);
  EXPECT_TRUE(through.a.detach().equal(stopped.a.detach()));
  EXPECT_TRUE(through.b.detach().equal(stopped.b.detach()));
}

}  // namespace
}  // namespace potstill
