#include "potstill/base/rng.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace potstill {
namespace {

// The first outputs of xoshiro256** from the state {1, 2, 3, 4}, computed by hand from its definition:
// rotl(2 * 5, 7) * 9 = 11520 and so on; also the values that the authors' C code prints.
TEST(Rng, EqualsTheReferenceGenerator) {
  Rng rng(Rng::State{1, 2, 3, 4});
  EXPECT_EQ(rng.next(), 11520u);
  EXPECT_EQ(rng.next(), 0u);
  EXPECT_EQ(rng.next(), 1509978240u);
  EXPECT_EQ(rng.next(), 1215971899390074240u);
}

TEST(Rng, StreamsDifferByNameAndSeedAndRepeat) {
  Rng a(7, "synth"), b(7, "synth"), c(7, "train"), d(8, "synth");
  const uint64_t first = a.next();
  EXPECT_EQ(first, b.next());
  EXPECT_NE(first, c.next());
  EXPECT_NE(first, d.next());
  Rng resumed(a.state());
  EXPECT_EQ(resumed.next(), a.next());
}

TEST(Rng, DrawsAreUniformAndNormal) {
  constexpr int kDraws = 60'000;
  Rng rng(1, "moments");
  std::vector<int> counts(6);
  double sum = 0, squares = 0;
  for (int i = 0; i < kDraws; ++i) {
    ++counts[rng.below(6)];
    const double z = rng.normal();
    sum += z;
    squares += z * z;
  }
  // Five standard errors: a sound generator fails once in two million seeds, and this seed is fixed.
  for (const int count : counts) EXPECT_NEAR(count, kDraws / 6.0, 5 * std::sqrt(kDraws * (1 / 6.0) * (5 / 6.0)));
  EXPECT_NEAR(sum / kDraws, 0, 5 / std::sqrt(kDraws));
  EXPECT_NEAR(squares / kDraws, 1, 5 * std::sqrt(2.0 / kDraws));
}

TEST(Rng, ShuffleIsAPermutation) {
  std::vector<int> items(100);
  std::iota(items.begin(), items.end(), 0);
  Rng(3, "shuffle").shuffle(items);
  EXPECT_FALSE(std::is_sorted(items.begin(), items.end()));
  std::sort(items.begin(), items.end());
  for (int i = 0; i < 100; ++i) EXPECT_EQ(items[static_cast<size_t>(i)], i);
}

}  // namespace
}  // namespace potstill
