// tests/golden/distill/kl_loss.json: torch 2.15.0, made by kl_loss.py beside it.
#include "potstill/distill/kl_loss.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "potstill/base/jsonl.h"
#include "potstill/base/rng.h"
#include "potstill/distill/kl_loss_ref.h"

namespace potstill {
namespace {

at::Tensor normal(std::vector<int64_t> shape, uint64_t seed) {
  Rng rng(seed, "test");
  auto tensor = at::empty(shape, at::kDouble);
  for (int64_t i = 0; i < tensor.numel(); ++i) tensor.data_ptr<double>()[i] = rng.normal();
  return tensor.to(at::kFloat);
}

at::Tensor tensor_of(const nlohmann::json& values, std::vector<int64_t> shape) {
  return at::tensor(values.get<std::vector<double>>(), at::kDouble).to(at::kFloat).reshape(shape);
}

double max_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

// A small distillation problem: student and teacher of different widths over one vocabulary.
struct Problem {
  int64_t vocab = 37;
  at::Tensor hidden = normal({13, 8}, 1), head = normal({37, 8}, 2);
  at::Tensor teacher_hidden = normal({13, 6}, 3), teacher_head = normal({37, 6}, 4);
  at::Tensor labels = at::arange(13, at::kLong);

  TeacherLogits teacher() const {
    return [this](int64_t begin, int64_t end) {
      return head_logits(teacher_hidden.narrow(0, begin, end - begin), teacher_head.narrow(0, 0, vocab));
    };
  }
  std::pair<KlLossSums, at::Tensor> run(double alpha, double temperature, int64_t rows = 128, double scale = 1) const {
    at::Tensor gradient;
    const auto sums =
        kl_loss(hidden, head, labels, teacher(),
                {.alpha = alpha, .temperature = temperature, .vocab_limit = vocab, .rows = rows}, scale, &gradient);
    return {sums, gradient};
  }
};

std::vector<double> row_of(const at::Tensor& logits, int64_t row) {
  const auto values = logits[row].to(at::kDouble).contiguous();
  return {values.const_data_ptr<double>(), values.const_data_ptr<double>() + values.numel()};
}

TEST(KlLoss, EqualsTheReferenceInDouble) {
  const Problem problem;
  for (const auto& [alpha, temperature] : {std::pair{1.0, 2.0}, {1.0, 1.0}, {0.6, 3.0}, {0.0, 1.0}}) {
    const auto [sums, gradient] = problem.run(alpha, temperature);
    const auto z = at::mm(problem.hidden.to(at::kDouble), problem.head.to(at::kDouble).t());
    const auto v = at::mm(problem.teacher_hidden.to(at::kDouble), problem.teacher_head.to(at::kDouble).t());
    KlLossSums expected;
    auto logits_gradient = at::empty_like(z);
    for (int64_t i = 0; i < z.size(0); ++i) {
      const auto row = kl_loss_ref(row_of(z, i), row_of(v, i), problem.labels[i].item<int64_t>(), alpha, temperature,
                                   {logits_gradient[i].data_ptr<double>(), static_cast<size_t>(problem.vocab)});
      expected += {.loss = row.loss, .kl = row.kl, .ce = row.ce, .tokens = 1};
    }
    // fp32 logits of size ~10 with sums over 8 and 37 terms: relative 1e-6 of a sum over 13 rows.
    EXPECT_NEAR(sums.kl, expected.kl, 2e-6 * expected.kl + 1e-6);
    EXPECT_NEAR(sums.ce, expected.ce, 2e-6 * expected.ce);
    EXPECT_NEAR(sums.loss, expected.loss, 2e-6 * expected.loss);
    EXPECT_EQ(sums.tokens, 13);
    EXPECT_LT(max_difference(gradient, at::mm(logits_gradient, problem.head.to(at::kDouble))), 2e-5);
  }
}

// The ends of the settings' ranges: at T = 0.05 both distributions are nearly one token each, at 100 nearly flat.
TEST(KlLoss, EqualsTheReferenceAtTheLimitsOfAlphaAndTemperature) {
  const Problem problem;
  for (const auto& [alpha, temperature] :
       {std::pair{1.0, 0.05}, {1.0, 100.0}, {0.0, 0.05}, {0.0, 100.0}, {0.5, 0.05}}) {
    const auto [sums, gradient] = problem.run(alpha, temperature);
    const auto z = at::mm(problem.hidden.to(at::kDouble), problem.head.to(at::kDouble).t());
    const auto v = at::mm(problem.teacher_hidden.to(at::kDouble), problem.teacher_head.to(at::kDouble).t());
    double kl = 0, loss = 0;
    auto logits_gradient = at::empty_like(z);
    for (int64_t i = 0; i < z.size(0); ++i) {
      const auto row = kl_loss_ref(row_of(z, i), row_of(v, i), problem.labels[i].item<int64_t>(), alpha, temperature,
                                   {logits_gradient[i].data_ptr<double>(), static_cast<size_t>(problem.vocab)});
      kl += row.kl;
      loss += row.loss;
    }
    // An error of 1e-6 in a logit is 1e-6 / T in what the softmax sees; at T = 100 the KL itself is about 1e-3.
    EXPECT_NEAR(sums.kl, kl, 2e-5 * kl + 1e-5) << temperature;
    EXPECT_NEAR(sums.loss, loss, 2e-5 * std::abs(loss) + 1e-5 * temperature * temperature * alpha) << temperature;
    const auto expected = at::mm(logits_gradient, problem.head.to(at::kDouble));
    EXPECT_LT(max_difference(gradient, expected), 1e-4 * std::max(1.0, expected.abs().max().item<double>()))
        << temperature;
    if (alpha == 0) {
      EXPECT_EQ(sums.loss, sums.ce);
    }
  }
}

TEST(KlLossRef, GradientIsTheSlopeOfTheLoss) {
  const std::vector<double> teacher = {1.0, -2.0, 0.5, 3.0, 0.0};
  std::vector<double> student = {0.2, 1.5, -1.0, 2.0, 0.7}, gradient(5), unused(5);
  for (const auto& [alpha, temperature] : {std::pair{1.0, 2.0}, {0.3, 0.7}, {0.0, 1.0}}) {
    kl_loss_ref(student, teacher, 2, alpha, temperature, gradient);
    for (size_t k = 0; k < student.size(); ++k) {
      const double step = 1e-6, at = student[k];
      student[k] = at + step;
      const double above = kl_loss_ref(student, teacher, 2, alpha, temperature, unused).loss;
      student[k] = at - step;
      const double below = kl_loss_ref(student, teacher, 2, alpha, temperature, unused).loss;
      student[k] = at;
      EXPECT_NEAR(gradient[k], (above - below) / (2 * step), 1e-8) << "logit " << k;
    }
  }
}

TEST(KlLoss, EqualsPyTorchOnGoldenValuesWithPaddedHeads) {
  const auto golden = read_json_file(POTSTILL_SOURCE_DIR "/tests/golden/distill/kl_loss.json");
  const int64_t n = golden["shape"][0], d = golden["shape"][1], dt = golden["shape"][2], vocab = golden["shape"][3];
  const auto hidden = tensor_of(golden["hidden"], {n, d}), head = tensor_of(golden["head"], {vocab + 2, d});
  const auto teacher_hidden = tensor_of(golden["teacher_hidden"], {n, dt});
  const auto teacher_head = tensor_of(golden["teacher_head"], {vocab + 4, dt}).narrow(0, 0, vocab);
  const auto labels = at::tensor(golden["labels"].get<std::vector<int64_t>>(), at::kLong);
  for (const auto& expected : golden["cases"]) {
    at::Tensor gradient;
    const auto sums = kl_loss(
        hidden, head, labels,
        [&](int64_t begin, int64_t end) {
          return head_logits(teacher_hidden.narrow(0, begin, end - begin), teacher_head);
        },
        {.alpha = expected["alpha"], .temperature = expected["temperature"], .vocab_limit = vocab, .rows = 3}, 1.0,
        &gradient);
    EXPECT_NEAR(sums.kl, expected["kl"], 1e-5);
    EXPECT_NEAR(sums.ce, expected["ce"], 1e-5);
    EXPECT_NEAR(sums.loss, expected["loss"], 1e-4);
    EXPECT_LT(max_difference(gradient, tensor_of(expected["grad_hidden"], {n, d})), 1e-5);
  }
}

// tests/golden/distill/divergences.json: TRL 1.16, which leaves T² out.
TEST(KlLoss, OtherDivergencesAreTrlsTimesTheSquareOfTheTemperature) {
  const auto golden = read_json_file(POTSTILL_SOURCE_DIR "/tests/golden/distill/divergences.json");
  std::vector<double> z, v;
  for (const auto& row : golden["student"]) z.insert(z.end(), row.begin(), row.end());
  for (const auto& row : golden["teacher"]) v.insert(v.end(), row.begin(), row.end());
  const auto student = at::tensor(z, at::kDouble).to(at::kFloat).view({7, 11});
  const auto teacher = at::tensor(v, at::kDouble).to(at::kFloat).view({7, 11});
  for (const auto& expected : golden["cases"]) {
    const double beta = expected["beta"], temperature = expected["temperature"];
    KlLossOptions options{.alpha = 1.0, .temperature = temperature, .vocab_limit = 11, .rows = 3};
    options.divergence = beta == 0 ? Divergence::kForwardKl : beta == 1 ? Divergence::kReverseKl : Divergence::kJsd;
    options.jsd_beta = beta;
    at::Tensor gradient;
    const auto sums = kl_loss(
        student, at::eye(11), at::zeros({7}, at::kLong),
        [&](int64_t begin, int64_t end) { return teacher.narrow(0, begin, end - begin).clone(); }, options, 1.0,
        &gradient);
    EXPECT_NEAR(sums.kl, expected["sum"], 1e-5) << beta;
    EXPECT_NEAR(sums.loss, temperature * temperature * expected["sum"].get<double>(), 1e-4) << beta;
    std::vector<double> slopes;
    for (const auto& row : expected["gradient"]) slopes.insert(slopes.end(), row.begin(), row.end());
    const auto slope = at::tensor(slopes, at::kDouble).view({7, 11}) * (temperature * temperature);
    EXPECT_LT(max_difference(gradient, slope), 1e-5) << beta << " at T = " << temperature;
  }
}

TEST(KlLoss, TokensThatTheTeacherRulesOutCountAsZero) {
  Problem problem;
  at::Tensor gradient;
  const auto sums = kl_loss(
      problem.hidden, problem.head, problem.labels,
      [&](int64_t begin, int64_t end) {
        auto logits = problem.teacher()(begin, end);
        logits.narrow(1, 20, 10).fill_(-std::numeric_limits<float>::infinity());
        return logits;
      },
      {.alpha = 1.0, .temperature = 2.0, .vocab_limit = 37, .rows = 4}, 1.0, &gradient);
  EXPECT_TRUE(std::isfinite(sums.kl));
  EXPECT_TRUE(gradient.isfinite().all().item<bool>());
}

TEST(KlLoss, SaysNotANumberForLogitsThatAreNone) {
  Problem problem;
  problem.hidden[3][2] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(problem.run(1.0, 2.0).first.loss));
}

TEST(KlLoss, GivesTheSameGradientHoweverThePositionsAreCut) {
  const Problem problem;
  const auto [whole, gradient] = problem.run(0.8, 2.0, 128, 1.0 / 13);
  for (const int64_t rows : {1, 2, 5, 12, 13}) {
    const auto [sums, cut_gradient] = problem.run(0.8, 2.0, rows, 1.0 / 13);
    EXPECT_NEAR(sums.loss, whole.loss, 1e-5 * whole.loss);
    EXPECT_LT(max_difference(cut_gradient, gradient), 1e-6) << rows << " rows at a time";
  }
}

TEST(KlLoss, IsZeroWithZeroGradientForEqualModels) {
  Problem problem;
  problem.teacher_hidden = problem.hidden;
  problem.teacher_head = problem.head;
  const auto [sums, gradient] = problem.run(1.0, 2.0);
  EXPECT_NEAR(sums.kl, 0.0, 1e-6);
  EXPECT_LT(gradient.abs().max().item<double>(), 1e-6);
}

TEST(KlLoss, TendsToTheMatchingOfLogitsAtHighTemperature) {
  const Problem problem;
  const auto [sums, gradient] = problem.run(1.0, 1000.0);
  const auto z = at::mm(problem.hidden, problem.head.t()), v = at::mm(problem.teacher_hidden, problem.teacher_head.t());
  const auto difference = z - v;
  const auto expected = at::mm((difference - difference.mean(1, true)) / 37.0, problem.head);
  // First-order in 1/T: z/T is up to 0.01, and fp32 logarithms near log(37) leave 1e-7 · T of noise.
  EXPECT_LT(max_difference(gradient, expected), 0.02 * expected.abs().max().item<double>());
}

TEST(KlLoss, EqualsCrossEntropyAgainstACertainTeacher) {
  Problem problem;
  const auto certain = at::full({13, 37}, -1e4f).scatter(1, problem.labels.unsqueeze(1), 0.0);
  at::Tensor gradient;
  const auto sums = kl_loss(
      problem.hidden, problem.head, problem.labels,
      [&](int64_t begin, int64_t end) { return certain.narrow(0, begin, end - begin).clone(); },
      {.alpha = 1.0, .temperature = 1.0, .vocab_limit = 37, .rows = 4}, 1.0, &gradient);
  const auto [cross_entropy, ce_gradient] = problem.run(0.0, 1.0);
  EXPECT_NEAR(sums.kl, cross_entropy.ce, 1e-5 * cross_entropy.ce);
  EXPECT_LT(max_difference(gradient, ce_gradient), 1e-5);
}

TEST(KlLoss, WorksOnBfloat16HeadsWithin16BitRounding) {
  Problem problem;
  const auto [exact, exact_gradient] = problem.run(1.0, 2.0);
  problem.hidden = problem.hidden.to(at::kBFloat16);
  problem.head = problem.head.to(at::kBFloat16);
  const auto [sums, gradient] = problem.run(1.0, 2.0);
  EXPECT_EQ(gradient.scalar_type(), at::kBFloat16);
  EXPECT_NEAR(sums.kl, exact.kl, 0.03 * exact.kl);
  EXPECT_LT(max_difference(gradient, exact_gradient), 0.05 * exact_gradient.abs().max().item<double>());
}

}  // namespace
}  // namespace potstill
