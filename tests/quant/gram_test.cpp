#include "potstill/quant/gram.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace potstill {
namespace {

// The upper triangle by one product in double.
at::Tensor by_the_book(const at::Tensor& x) {
  const auto x64 = x.to(at::kDouble);
  return at::mm(x64.t(), x64).triu();
}

TEST(Gram, EqualsTheProductInDouble) {
  at::manual_seed(1);
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const int64_t width : {1, 16, 47, 48, 49, 200, 576}) {
      for (const int64_t tokens : {1, 2, 7, 513}) {
        const auto x = at::randn({tokens, width}).to(dtype);
        const auto sum = at::zeros({width, width}, at::kDouble);
        quant::add_gram(x, sum);
        const auto expected = by_the_book(x);
        const double largest = expected.abs().max().item<double>();
        EXPECT_LT((sum.triu() - expected).abs().max().item<double>(), 2e-6 * largest)
            << dtype << " " << tokens << " x " << width;
      }
    }
  }
}

TEST(Gram, AddsToWhatIsThere) {
  at::manual_seed(2);
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto x = at::randn({5000, 96}).to(dtype);  // more tokens than a panel holds
    auto sum = at::full({96, 96}, 7.0, at::kDouble);
    quant::add_gram(x, sum);
    const auto expected = by_the_book(x) + at::full({96, 96}, 7.0, at::kDouble).triu();
    EXPECT_LT((sum.triu() - expected).abs().max().item<double>(), 0.05) << dtype;  // of 5,000
  }
}

// A channel a thousand times the others must not drown them: each entry has its own fp32 sum.
TEST(Gram, KeepsSmallChannelsBesideLargeOnes) {
  at::manual_seed(3);
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    auto x = at::randn({512, 64});
    x.select(1, 3).mul_(1000);
    x = x.to(dtype);
    const auto sum = at::zeros({64, 64}, at::kDouble);
    quant::add_gram(x, sum);
    const auto expected = by_the_book(x);
    const auto scale = at::sqrt(at::outer(expected.diagonal(), expected.diagonal()));
    EXPECT_LT(((sum.triu() - expected).abs() / scale).max().item<double>(), 5e-6) << dtype;
  }
}

TEST(Gram, TakesRowsThatLieApart) {
  at::manual_seed(4);
  const auto wide = at::randn({64, 200}).to(at::kBFloat16);
  const auto x = wide.slice(1, 10, 110);
  const auto sum = at::zeros({100, 100}, at::kDouble);
  quant::add_gram(x, sum);
  EXPECT_LT((sum.triu() - by_the_book(x)).abs().max().item<double>(), 1e-3);
}

}  // namespace
}  // namespace potstill
