// Log-probabilities of given tokens against ATen's log_softmax in double.
#include "potstill/nn/token_log_probs.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

namespace potstill {
namespace {

// The head hands the rows on: hidden states as wide as the vocabulary.
TokenLogProbs score(const at::Tensor& logits, const at::Tensor& targets) {
  return token_log_probs(logits, at::arange(logits.size(0), at::kLong), targets, [](const at::Tensor& x) { return x; });
}

TEST(TokenLogProbs, EqualLogSoftmaxInDouble) {
  at::manual_seed(7);
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    for (const int64_t vocabulary : {1, 15, 16, 17, 1000}) {
      constexpr int64_t kCount = 300;  // more than a chunk of positions
      const auto logits = (at::randn({kCount, vocabulary}) * 8 + 30).to(type);
      const auto targets = at::randint(vocabulary, {kCount}, at::kLong);
      const auto found = score(logits, targets);
      const auto exact = logits.to(at::kDouble).log_softmax(1).gather(1, targets.unsqueeze(1)).squeeze(1);
      EXPECT_LT((found.log_prob - exact).abs().max().item<double>(), 2e-6) << vocabulary;
      EXPECT_TRUE(found.is_argmax.equal(logits.to(at::kFloat).argmax(1).eq(targets))) << vocabulary;
    }
  }
}

TEST(TokenLogProbs, RowsMayBeAskedInAnyOrderAndMoreThanOnce) {
  at::manual_seed(8);
  const auto logits = at::randn({200, 50});
  const auto rows = at::randint(200, {500}, at::kLong), targets = at::randint(50, {500}, at::kLong);
  const auto found = token_log_probs(logits, rows, targets, [](const at::Tensor& x) { return x; });
  const auto all = logits.to(at::kDouble).log_softmax(1).index_select(0, rows);
  EXPECT_LT((found.log_prob - all.gather(1, targets.unsqueeze(1)).squeeze(1)).abs().max().item<double>(), 2e-6);
  EXPECT_TRUE(found.is_argmax.equal(all.argmax(1).eq(targets)));
  // what no kernel of ours reads goes by ATen
  const auto by_aten = token_log_probs(logits, rows, targets, [](const at::Tensor& x) { return x.to(at::kDouble); });
  EXPECT_TRUE(at::allclose(by_aten.log_prob, found.log_prob, 0, 2e-6));
  EXPECT_TRUE(by_aten.is_argmax.equal(found.is_argmax));
}

TEST(TokenLogProbs, OfEqualLogitsTheLowestTokenIsTheArgmax) {
  const auto logits = at::tensor({1.f, 5.f, 5.f, 0.f}).repeat({4, 1});
  const auto found = score(logits, at::tensor({0, 1, 2, 3}, at::kLong));
  EXPECT_TRUE(found.is_argmax.equal(at::tensor({0, 1, 0, 0}, at::kByte).to(at::kBool)));
}

TEST(TokenLogProbs, NaNAndInfinityAreNotHidden) {
  for (const float bad : {NAN, INFINITY}) {
    const auto logits = at::zeros({2, 40});
    logits[0][3] = bad;
    const auto found = score(logits, at::tensor({0, 0}, at::kLong));
    EXPECT_FALSE(std::isfinite(found.log_prob[0].item<double>())) << bad;
    EXPECT_NEAR(found.log_prob[1].item<double>(), -std::log(40.0), 1e-6);
  }
}

// A head that forbids a token by minus infinity.
TEST(TokenLogProbs, MinusInfinityHasNoShare) {
  const auto logits = at::zeros({1, 20});
  logits[0][5] = -INFINITY;
  EXPECT_NEAR(score(logits, at::tensor({0}, at::kLong)).log_prob[0].item<double>(), -std::log(19.0), 1e-6);
}

}  // namespace
}  // namespace potstill
