#include "potstill/text/minhash.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "potstill/base/rng.h"

namespace potstill {
namespace {

// `count` words drawn from a thousand.
std::string random_text(Rng& rng, int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += "w" + std::to_string(rng.below(1000)) + " ";
  return text;
}

TEST(MinHash, ShinglesAreRunsOfThreeWordsWithoutCaseAndMarks) {
  EXPECT_EQ(shingles("The cat sat down."), shingles("the CAT, sat - down"));
  EXPECT_EQ(shingles("one two three four").size(), 2u);
  EXPECT_EQ(shingles("one two").size(), 1u);
  EXPECT_TRUE(shingles(" .,!").empty());
  EXPECT_NE(shingles("ab c d"), shingles("a bc d"));
}

TEST(MinHash, JaccardByHand) {
  EXPECT_DOUBLE_EQ(jaccard({1, 2, 3, 4}, {3, 4, 5, 6}), 2.0 / 6.0);
  EXPECT_DOUBLE_EQ(jaccard({}, {1}), 0.0);
}

// The share of equal rows estimates the Jaccard similarity with a standard error of sqrt(J (1 - J) / 128); 200 texts in
// a row may be off by four of them.
TEST(MinHash, EqualRowsEstimateTheSimilarity) {
  const MinHashIndex index;
  Rng rng(7, "minhash");
  double sum_of_squares = 0;
  for (int repeat = 0; repeat < 200; ++repeat) {
    const std::string common = random_text(rng, 60);
    const auto a = shingles(common + random_text(rng, static_cast<int>(rng.below(60))));
    const auto b = shingles(common + random_text(rng, static_cast<int>(rng.below(60))));
    const auto rows_a = index.signature(a), rows_b = index.signature(b);
    double equal = 0;
    for (size_t i = 0; i < MinHashIndex::kHashes; ++i) equal += rows_a[i] == rows_b[i];
    const double exact = jaccard(a, b), error = std::sqrt(exact * (1 - exact) / MinHashIndex::kHashes);
    EXPECT_NEAR(equal / MinHashIndex::kHashes, exact, 4 * error + 1e-12) << "repeat " << repeat;
    sum_of_squares += std::pow((equal / MinHashIndex::kHashes - exact) / error, 2);
  }
  EXPECT_NEAR(sum_of_squares / 200, 1.0, 0.3) << "the functions are independent enough";
}

// (1 - (1 - J^8)^16) of the pairs become candidates: 99 % at J = 0.87 and one in 4000 at J = 0.25.
TEST(MinHash, FindsNearTextsAndPassesOverTheRest) {
  MinHashIndex index;
  Rng rng(8, "minhash");
  std::vector<std::string> texts;
  for (int i = 0; i < 500; ++i) index.add(texts.emplace_back(random_text(rng, 60)));
  int found = 0;
  for (int i = 0; i < 500; ++i) {
    const auto near = index.nearest(texts[static_cast<size_t>(i)] + "one word more two", 0.8);
    found += near && near->index == static_cast<size_t>(i);
    EXPECT_FALSE(index.nearest(random_text(rng, 60), 0.2));
  }
  EXPECT_GE(found, 495);
}

}  // namespace
}  // namespace potstill
