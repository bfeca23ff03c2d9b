// tests/golden/optim/optimizers.json: torch 2.15.0, made by optimizers.py beside it.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"
#include "potstill/base/rng.h"
#include "potstill/optim/adamw.h"
#include "potstill/optim/muon.h"
#include "potstill/optim/newton_schulz.h"
#include "potstill/optim/schedule.h"

namespace potstill {
namespace {

const nlohmann::json& golden() {
  static const auto json = read_json_file(POTSTILL_SOURCE_DIR "/tests/golden/optim/optimizers.json");
  return json;
}

at::Tensor tensor_of(const nlohmann::json& values, const nlohmann::json& shape) {
  return at::tensor(values.get<std::vector<double>>(), at::kDouble)
      .to(at::kFloat)
      .reshape(shape.get<std::vector<int64_t>>());
}

at::Tensor normal(std::vector<int64_t> shape, uint64_t seed) {
  Rng rng(seed, "test");
  auto tensor = at::empty(shape, at::kDouble);
  for (int64_t i = 0; i < tensor.numel(); ++i) tensor.data_ptr<double>()[i] = rng.normal();
  return tensor.to(at::kFloat);
}

double max_difference(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

std::vector<at::Tensor> parameters_of(const nlohmann::json& run) {
  std::vector<at::Tensor> parameters;
  for (size_t i = 0; i < run["start"].size(); ++i) {
    parameters.push_back(tensor_of(run["start"][i], run["shapes"][i]).set_requires_grad(true));
  }
  return parameters;
}

void set_gradients(std::vector<at::Tensor>& parameters, const nlohmann::json& run, const nlohmann::json& step) {
  for (size_t i = 0; i < parameters.size(); ++i) {
    parameters[i].mutable_grad() = tensor_of(step["gradients"][i], run["shapes"][i]);
  }
}

TEST(NewtonSchulz, BothFormsEqualThePublishedIterationInDouble) {
  for (const auto& entry : golden()["newton_schulz"]) {
    const auto input = tensor_of(entry["input"], entry["shape"]).unsqueeze(0);
    const auto expected = tensor_of(entry["output"], entry["shape"]).unsqueeze(0);
    // Five fp32 steps amplify rounding of small singular values by up to 3.4445⁵ = 485: 485 · 2⁻²⁴ · a few.
    EXPECT_LT(max_difference(newton_schulz_direct(input), expected), 1e-4) << entry["shape"];
    EXPECT_LT(max_difference(newton_schulz_gram(input), expected), 1e-5) << entry["shape"];
    EXPECT_LT(max_difference(newton_schulz(input), expected), 1e-4) << entry["shape"];
  }
}

TEST(NewtonSchulz, BringsSingularValuesNearOne) {
  const auto singular = at::linalg_svdvals(newton_schulz(normal({3, 16, 200}, 1)));
  EXPECT_GT(singular.min().item<double>(), 0.6);
  EXPECT_LT(singular.max().item<double>(), 1.25);
}

TEST(NewtonSchulz, IgnoresTheScaleAndCommutesWithTransposition) {
  const auto g = normal({2, 8, 40}, 2);
  EXPECT_LT(max_difference(newton_schulz(g), newton_schulz(g * 1e-9)), 1e-5);  // norm 2e-8: under the published eps
  EXPECT_LT(max_difference(newton_schulz(g).transpose(1, 2), newton_schulz(g.transpose(1, 2))), 1e-6);
}

TEST(NewtonSchulz, KeepsZeroAtZeroAndRankOneAtRankOne) {
  EXPECT_EQ(newton_schulz(at::zeros({2, 4, 20})).abs().max().item<double>(), 0.0);
  EXPECT_EQ(newton_schulz(at::zeros({2, 4, 5})).abs().max().item<double>(), 0.0);
  const auto rank_one = at::bmm(normal({1, 8, 1}, 3), normal({1, 1, 40}, 4));
  const auto singular = at::linalg_svdvals(newton_schulz(rank_one))[0];
  // p(1) applied five times is what a lone singular value of 1 ends at.
  double s = 1;
  for (int i = 0; i < 5; ++i) s = 3.4445 * s - 4.7750 * s * s * s + 2.0315 * std::pow(s, 5);
  EXPECT_NEAR(singular[0].item<double>(), s, 1e-4);
  EXPECT_LT(singular[1].item<double>(), 1e-3);  // 485 × the rounding of the fp32 input
}

TEST(NewtonSchulz, GramFormHoldsItsAccuracyOnIllConditionedMatrices) {
  // Singular values 1 … 1e-5: in fp32 the Gram matrix would lose those under 3e-4.
  const auto u = std::get<0>(at::linalg_qr(normal({16, 16}, 5)));
  const auto v = std::get<0>(at::linalg_qr(normal({300, 16}, 6)));
  const auto s = at::logspace(0, -5, 16, 10, at::kFloat);
  const auto g = at::mm(u * s, v.t()).unsqueeze(0);
  auto x = g.to(at::kDouble) / g.to(at::kDouble).norm();
  for (int i = 0; i < 5; ++i) {
    const auto gram = at::bmm(x, x.transpose(1, 2));
    x = 3.4445 * x + at::bmm(-4.7750 * gram + 2.0315 * at::bmm(gram, gram), x);
  }
  EXPECT_LT(max_difference(newton_schulz_gram(g).to(at::kDouble), x), 2e-5);
}

TEST(Muon, StepsAsTorchDoesUpToItsBfloat16) {
  for (const auto& [scale, run] : golden()["muon"].items()) {
    auto parameters = parameters_of(run);
    Muon muon(parameters, {.weight_decay = 0.1, .scale = parse_muon_scale(scale)});
    for (const auto& step : run["steps"]) {
      set_gradients(parameters, run, step);
      const double lr = step["lr"];
      muon.step(lr);
      for (size_t i = 0; i < parameters.size(); ++i) {
        const auto expected = tensor_of(step["parameters"][i], run["shapes"][i]);
        const double factor = muon_scale_factor(parse_muon_scale(scale), expected.size(0), expected.size(1));
        // bfloat16 keeps 8 bits and its errors pass through five steps: 3 % of an orthogonal matrix's entries, a step.
        EXPECT_LT(max_difference(parameters[i], expected), 0.03 * 3 * lr * factor) << scale << " parameter " << i;
        // The update itself (about lr · factor · 0.4 at most) is far larger than the tolerance.
      }
    }
  }
}

TEST(Muon, EqualsTheWrittenOutRuleInDouble) {
  const auto start = normal({6, 30}, 8);
  auto p = start.clone().set_requires_grad(true);
  Muon muon({p}, {.weight_decay = 0.1, .scale = MuonScale::kMatchRmsAdamw});
  auto expected = start.to(at::kDouble), buffer = at::zeros_like(expected);
  for (int t = 0; t < 4; ++t) {
    const auto g = normal({6, 30}, 100 + t) * 1e-4;
    p.mutable_grad() = g;
    muon.step(0.01);
    const auto g64 = g.to(at::kDouble);
    buffer = 0.95 * buffer + 0.05 * g64;
    auto x = 0.95 * buffer + 0.05 * g64;
    x = x / x.norm();
    for (int i = 0; i < 5; ++i) {
      const auto gram = at::mm(x, x.t());
      x = 3.4445 * x + at::mm(-4.7750 * gram + 2.0315 * at::mm(gram, gram), x);
    }
    expected = expected * (1 - 0.01 * 0.1) - 0.01 * 0.2 * std::sqrt(30.0) * x;
    EXPECT_LT(max_difference(p.detach().to(at::kDouble), expected), 1e-6) << "step " << t;
  }
}

TEST(Muon, MovesNothingOnAZeroGradientAndTreatsBatchMatesAlone) {
  auto still = normal({4, 32}, 9).set_requires_grad(true), moving = normal({4, 32}, 10).set_requires_grad(true);
  auto alone = moving.detach().clone().set_requires_grad(true);
  const auto before = still.detach().clone(), gradient = normal({4, 32}, 11);
  Muon together({still, moving}, {}), single({alone}, {});
  still.mutable_grad() = at::zeros({4, 32});
  moving.mutable_grad() = gradient;
  alone.mutable_grad() = gradient;
  together.step(0.02);
  single.step(0.02);
  EXPECT_TRUE(still.detach().equal(before));
  EXPECT_LT(max_difference(moving.detach(), alone.detach()), 1e-7);
  EXPECT_GT(together.update_rms(), 0);
}

TEST(AdamW, StepsAsTorchDoes) {
  const auto& run = golden()["adamw"];
  auto parameters = parameters_of(run);
  AdamW adamw(parameters, {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.01});
  for (const auto& step : run["steps"]) {
    set_gradients(parameters, run, step);
    adamw.step(step["lr"]);
    for (size_t i = 0; i < parameters.size(); ++i) {
      // One or two roundings of values near 0.1.
      EXPECT_LT(max_difference(parameters[i], tensor_of(step["parameters"][i], run["shapes"][i])), 5e-8);
    }
  }
}

// N steps, save, load into a fresh optimizer, M steps: the bytes of N + M steps.
template <class Opt, class Options>
void expect_exact_resume(const Options& options) {
  const auto start = normal({5, 20}, 12);
  const auto run = [&](at::Tensor& p, Opt& optimizer, int from, int to) {
    for (int t = from; t < to; ++t) {
      p.mutable_grad() = normal({5, 20}, 200 + t);
      optimizer.step(0.01);
    }
  };
  auto whole = start.clone().set_requires_grad(true);
  Opt one({whole}, options);
  run(whole, one, 0, 5);

  auto first = start.clone().set_requires_grad(true);
  Opt before({first}, options);
  run(first, before, 0, 2);
  std::vector<NamedTensor> saved;
  for (const auto& [name, tensor] : before.state()) saved.push_back({name, tensor.clone()});
  auto second = first.detach().clone().set_requires_grad(true);
  Opt after({second}, options);
  after.load_state(saved, "test");
  run(second, after, 2, 5);
  EXPECT_TRUE(second.detach().equal(whole.detach()));

  saved.pop_back();
  EXPECT_THROW(after.load_state(saved, "test"), Error);
}

TEST(Muon, ResumesToTheBit) { expect_exact_resume<Muon>(MuonOptions{}); }
TEST(AdamW, ResumesToTheBit) { expect_exact_resume<AdamW>(AdamWOptions{}); }

TEST(ClipGradNorm, ScalesAllGradientsTogether) {
  auto a = at::zeros({2}).set_requires_grad(true), b = at::zeros({1}).set_requires_grad(true);
  a.mutable_grad() = at::tensor({3.0f, 0.0f});
  b.mutable_grad() = at::tensor({4.0f});
  EXPECT_DOUBLE_EQ(clip_grad_norm({a, b}, 0), 5.0);
  EXPECT_FLOAT_EQ(a.grad()[0].item<float>(), 3.0f);
  EXPECT_DOUBLE_EQ(clip_grad_norm({a, b}, 1.0), 5.0);
  EXPECT_FLOAT_EQ(a.grad()[0].item<float>(), 0.6f);
  EXPECT_FLOAT_EQ(b.grad()[0].item<float>(), 0.8f);
  b.mutable_grad() = at::tensor({std::nanf("")});
  EXPECT_TRUE(std::isnan(clip_grad_norm({a, b}, 1.0)));
  EXPECT_FLOAT_EQ(a.grad()[0].item<float>(), 0.6f);
}

TEST(CosineSchedule, RisesLinearlyThenFallsAsACosine) {
  const CosineSchedule schedule{.peak = 2.0, .min_ratio = 0.1, .warmup_steps = 4, .num_steps = 12};
  EXPECT_DOUBLE_EQ(schedule.lr(0), 0.5);
  EXPECT_DOUBLE_EQ(schedule.lr(3), 2.0);
  EXPECT_DOUBLE_EQ(schedule.lr(4), 2.0);
  EXPECT_NEAR(schedule.lr(8), 0.2 + 0.5 * 1.8, 1e-12);
  EXPECT_NEAR(schedule.lr(12), 0.2, 1e-12);
  EXPECT_DOUBLE_EQ((CosineSchedule{.peak = 1.0, .min_ratio = 0, .warmup_steps = 0, .num_steps = 1}.lr(0)), 1.0);
}

}  // namespace
}  // namespace potstill
