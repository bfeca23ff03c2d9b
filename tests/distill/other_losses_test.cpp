// The losses beside KL: top-k with a rest, and ULD.   tests/golden/distill/uld.json: TRL and PyTorch, made by uld.py.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/distill/tiny_models.h"

#include "potstill/base/jsonl.h"
#include "potstill/distill/top_k_loss.h"
#include "potstill/distill/uld_loss.h"

namespace potstill {
namespace {

const std::string kGolden = POTSTILL_SOURCE_DIR "/tests/golden/distill/";

at::Tensor doubles(const nlohmann::json& values, std::vector<int64_t> shape) {
  return at::tensor(values.get<std::vector<double>>(), at::kDouble).reshape(shape);
}

TEST(UldLoss, EqualsTrlAndPyTorchOnGoldenValues) {
  const auto golden = read_json_file(kGolden + "uld.json");
  const int64_t n = golden["shape"][0], d = golden["shape"][1];
  for (const auto& c : golden["cases"]) {
    const int64_t vs = c["student_vocab"], vt = c["teacher_vocab"];
    const double alpha = c["alpha"], temperature = c["temperature"];
    const auto hidden = doubles(c["hidden"], {n, d}).to(at::kFloat), head = doubles(c["head"], {vs, d}).to(at::kFloat);
    const auto teacher = doubles(c["teacher"], {n, vt}).to(at::kFloat);
    const auto labels = at::tensor(c["labels"].get<std::vector<int64_t>>(), at::kLong);
    const TeacherLogits logits = [&](int64_t begin, int64_t end) { return teacher.narrow(0, begin, end - begin); };
    for (const int64_t rows : {int64_t{1}, int64_t{4}, n}) {
      KlLossOptions options{.divergence = Divergence::kUld, .alpha = alpha, .temperature = temperature};
      options.vocab_limit = vs;
      options.rows = rows;
      at::Tensor gradient;
      const auto sums = uld_loss(hidden, head, labels, logits, at::ones({n}, at::kBool), options, 1.0, &gradient);
      EXPECT_NEAR(sums.kl, c["uld"].get<double>(), 1e-5);
      EXPECT_NEAR(sums.kl, c["trl"].get<double>() * static_cast<double>(n), 1e-5);  // TRL's is a mean
      EXPECT_NEAR(sums.loss, c["loss"].get<double>(), 1e-4);
      EXPECT_LT((gradient - doubles(c["grad_hidden"], {n, d})).abs().max().item<double>(), 2e-5);
    }
  }
}

TEST(UldLoss, LeavesPositionsWithoutATeacherToTheLabels) {
  at::manual_seed(1);
  const auto hidden = at::randn({2, 5}), head = at::randn({9, 5}), teacher = at::randn({2, 7});
  const auto labels = at::tensor({3, 4}, at::kLong);
  const TeacherLogits logits = [&](int64_t begin, int64_t end) { return teacher.narrow(0, begin, end - begin); };
  KlLossOptions options{.divergence = Divergence::kUld, .alpha = 0.5, .temperature = 1};
  options.vocab_limit = 9;
  at::Tensor both, one;
  const auto mask = at::tensor({1, 0}, at::kLong).to(at::kBool);
  const auto sums = uld_loss(hidden, head, labels, logits, mask, options, 1.0, &both);
  EXPECT_NEAR(sums.kl, uld_rows(at::linear(hidden, head), teacher, 1)[0].item<double>(), 1e-6);
  const auto nothing = at::zeros({2}, at::kBool);
  EXPECT_EQ(uld_loss(hidden, head, labels, logits, nothing, options, 1.0, &one).kl, 0);
  EXPECT_TRUE(both[1].allclose(one[1]));
  EXPECT_FALSE(both[0].allclose(one[0]));
}

// ---- top-k with a rest

// L in double over the whole vocabulary, from its definition: within the k tokens at T, between them and the rest at 1.
at::Tensor reference(const at::Tensor& z, const at::Tensor& teacher, const at::Tensor& ids, double temperature) {
  const auto p = at::softmax(teacher, 1).gather(1, ids), q = at::softmax(z, 1).gather(1, ids);
  const auto c = p.sum(1), big_c = q.sum(1);
  const auto log_p = at::log_softmax(teacher.gather(1, ids) / temperature, 1);
  const auto log_q = at::log_softmax(z.gather(1, ids) / temperature, 1);
  const auto within = (log_p.exp() * (log_p - log_q)).sum(1);
  return temperature * temperature * c * within + c * (c / big_c).log() + (1 - c) * ((1 - c) / (1 - big_c)).log();
}

struct TopKCase {
  at::Tensor hidden, head, teacher, labels;
  at::Tensor ids = {};
  TopKRows rows = {};
};
TopKCase top_k_case(int64_t k, int64_t vocabulary = 13) {
  at::manual_seed(3);
  TopKCase c{.hidden = at::randn({5, 4}, at::kDouble),
             .head = at::randn({vocabulary, 4}, at::kDouble),
             .teacher = 2 * at::randn({5, vocabulary}, at::kDouble),
             .labels = at::randint(vocabulary, {5}, at::kLong)};
  c.ids = std::get<1>(c.teacher.topk(k, 1));
  c.rows = {.ids = c.ids, .log_probs = at::log_softmax(c.teacher, 1).gather(1, c.ids).to(at::kFloat)};
  return c;
}

TEST(TopKLoss, IsItsDefinitionAndItsGradientTheSlopeHoweverThePositionsAreCut) {
  const auto c = top_k_case(4);
  for (const double temperature : {1.0, 2.0, 0.5}) {
    for (const double alpha : {1.0, 0.3}) {
      auto hidden = c.hidden.clone().set_requires_grad(true);
      const auto z = at::linear(hidden, c.head);
      const auto ce = -at::log_softmax(z, 1).gather(1, c.labels.unsqueeze(1)).sum();
      const auto loss = alpha * reference(z, c.teacher, c.ids, temperature).sum() + (1 - alpha) * ce;
      loss.backward();
      for (const int64_t rows : {1, 2, 5}) {
        KlLossOptions options{.alpha = alpha, .temperature = temperature};
        options.vocab_limit = c.head.size(0);
        options.rows = rows;
        at::Tensor gradient;
        const auto sums =
            top_k_loss(c.hidden.to(at::kFloat), c.head.to(at::kFloat), c.labels, c.rows, options, 0.25, &gradient);
        EXPECT_NEAR(sums.loss, loss.item<double>(), 2e-5 * std::abs(loss.item<double>()));
        EXPECT_LT((gradient - 0.25 * hidden.grad()).abs().max().item<double>(), 2e-5) << temperature << " " << alpha;
      }
    }
  }
}

TEST(TopKLoss, IsALowerBoundOfTheKlThatGrowsWithKAndMeetsIt) {
  double last = 0;
  for (const int64_t k : {1, 3, 6, 12}) {
    const auto c = top_k_case(k);
    const auto z = at::linear(c.hidden, c.head);
    const auto log_p = at::log_softmax(c.teacher, 1);
    const double kl = (log_p.exp() * (log_p - at::log_softmax(z, 1))).sum().item<double>();
    const double bound = top_k_rows(z.to(at::kFloat), c.rows, 1).sum().item<double>();
    EXPECT_LE(bound, kl + 1e-5);
    EXPECT_GE(bound, last - 1e-5) << k;
    if (k == 12) {  // all but one of the thirteen: the rest is one token
      EXPECT_NEAR(bound, kl, 1e-4);
    }
    last = bound;
  }
}

TEST(TopKLoss, PullsNowhereWhereTheStudentIsTheTeacher) {
  auto c = top_k_case(4);
  // A student with the teacher's masses on the k tokens and any shape in the rest.
  auto z = c.teacher.clone();
  const auto p = at::softmax(c.teacher, 1);
  auto tail = at::ones_like(p).scatter(1, c.ids, 0.0);
  const auto rest = 1 - p.gather(1, c.ids).sum(1, true);
  z = (p * (1 - tail) + tail * rest / tail.sum(1, true)).log();
  const auto identity = at::eye(13, at::kFloat);
  KlLossOptions options{.alpha = 1, .temperature = 2};
  options.vocab_limit = 13;
  at::Tensor gradient;
  const auto sums = top_k_loss(z.to(at::kFloat), identity, c.labels, c.rows, options, 1.0, &gradient);
  EXPECT_NEAR(sums.loss, 0, 1e-5);
  EXPECT_LT(gradient.abs().max().item<double>(), 1e-5);
}

TEST(TopKLoss, TakesShortRowsAndMassesOfOne) {
  const auto z = at::randn({2, 6});
  const float minus_inf = -std::numeric_limits<float>::infinity();
  // One row with two tokens of three, one whose first token has all the mass but for rounding.
  const TopKRows rows{.ids = at::tensor({1, 2, 1, 4, 3, 0}, at::kLong).reshape({2, 3}),
                      .log_probs = at::tensor({-0.5f, -1.5f, minus_inf, 1e-7f, -18.f, -19.f}).reshape({2, 3})};
  const TopKRows two{.ids = rows.ids.narrow(1, 0, 2).narrow(0, 0, 1),
                     .log_probs = rows.log_probs.narrow(1, 0, 2).narrow(0, 0, 1)};
  const auto values = top_k_rows(z, rows, 1.0);
  EXPECT_NEAR(values[0].item<double>(), top_k_rows(z.narrow(0, 0, 1), two, 1.0)[0].item<double>(), 1e-6);
  EXPECT_NEAR(values[1].item<double>(), -at::log_softmax(z, 1)[1][4].item<double>(), 1e-4);
  KlLossOptions options{.alpha = 1, .temperature = 1};
  options.vocab_limit = 6;
  at::Tensor gradient;
  top_k_loss(z, at::eye(6), at::zeros({2}, at::kLong), rows, options, 1.0, &gradient);
  EXPECT_TRUE(gradient.isfinite().all().item<bool>());
  EXPECT_NEAR(gradient.sum(1).abs().max().item<double>(), 0, 1e-5);  // a softmax's slope adds up to nothing
}

}  // namespace
}  // namespace potstill
