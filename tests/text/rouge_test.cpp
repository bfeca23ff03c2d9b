#include "potstill/text/rouge.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "potstill/base/rng.h"

namespace potstill {
namespace {

using Words = std::vector<std::string>;

size_t lcs_ref(const Words& a, const Words& b) {
  std::vector<std::vector<size_t>> length(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i < a.size(); ++i) {
    for (size_t j = 0; j < b.size(); ++j) {
      length[i + 1][j + 1] = a[i] == b[j] ? length[i][j] + 1 : std::max(length[i][j + 1], length[i + 1][j]);
    }
  }
  return length[a.size()][b.size()];
}

double rouge_l_ref(std::string_view candidate, std::string_view reference) {
  const Words a = rouge_words(candidate), b = rouge_words(reference);
  const auto common = static_cast<double>(lcs_ref(a, b));
  if (common == 0) return 0;
  const double precision = common / static_cast<double>(a.size()), recall = common / static_cast<double>(b.size());
  return 2 * precision * recall / (precision + recall);
}

// A text of `num_words` from a vocabulary of `vocabulary`; few words give long common subsequences.
std::string random_text(Rng& rng, size_t num_words, uint64_t vocabulary) {
  std::string text;
  for (size_t i = 0; i < num_words; ++i) text += "w" + std::to_string(rng.below(vocabulary)) + " ";
  return text;
}

TEST(Rouge, WordsAreLowerCaseRunsOfAsciiLettersAndDigits) {
  EXPECT_EQ(rouge_words("Don't STOP—3.5°C, naïve_x "), (Words{"don", "t", "stop", "3", "5", "c", "na", "ve", "x"}));
  EXPECT_TRUE(rouge_words(" …!\n").empty());
}

TEST(Rouge, EqualsThePlainDynamicProgrammeAcrossWordsOfBits) {
  Rng rng(7, "rouge");
  for (const size_t a : {0u, 1u, 2u, 31u, 63u, 64u, 65u, 127u, 128u, 129u, 200u}) {
    for (const size_t b : {0u, 1u, 5u, 64u, 130u}) {
      const std::string candidate = random_text(rng, a, 6), reference = random_text(rng, b, 6);
      EXPECT_DOUBLE_EQ(rouge_l(candidate, reference), rouge_l_ref(candidate, reference))
          << a << " and " << b << " words";
    }
  }
}

// tests/golden/text/make_rouge_golden.py: rouge-score 0.1.2, rougeL without stemming.
TEST(RougeGolden, EqualsTheRougeScorePackage) {
  std::ifstream file(POTSTILL_SOURCE_DIR "/tests/golden/text/rouge_l.json");
  ASSERT_TRUE(file);
  for (const auto& row : nlohmann::json::parse(file)) {
    EXPECT_DOUBLE_EQ(rouge_l(row["candidate"].get<std::string>(), row["reference"].get<std::string>()), row["fmeasure"])
        << row.dump();
  }
}

TEST(RougePool, NearestIsTheMaximumOverAllWithAndWithoutAThreshold) {
  Rng rng(11, "rouge pool");
  std::vector<std::string> texts;
  RougePool pool;
  for (int i = 0; i < 200; ++i) {
    texts.push_back(random_text(rng, rng.below(40), 12));
    pool.add(texts.back());
  }
  for (int i = 0; i < 50; ++i) {
    const std::string text = random_text(rng, rng.below(40), 14);
    RougePool::Nearest expected;
    double sum = 0;
    for (size_t k = 0; k < texts.size(); ++k) {
      const double score = rouge_l_ref(text, texts[k]);
      sum += score;
      if (score > expected.score) expected = {score, k};
    }
    const auto nearest = pool.nearest(text);
    EXPECT_DOUBLE_EQ(nearest.score, expected.score) << text;
    EXPECT_EQ(nearest.index, expected.index) << text;
    EXPECT_DOUBLE_EQ(pool.nearest(text, 0.5).score, expected.score >= 0.5 ? expected.score : 0) << text;
    EXPECT_DOUBLE_EQ(pool.most_similar(text, 10)[0].score, expected.score);
    EXPECT_NEAR(pool.mean(text), sum / 200, 1e-12);
  }
}

TEST(RougePool, MostSimilarIsSortedAndOfEqualScoresTheFirstAddedComesFirst) {
  RougePool pool;
  for (const char* text : {"a b", "c d", "a b", "a x"}) pool.add(text);
  const auto similar = pool.most_similar("a b", 3);
  ASSERT_EQ(similar.size(), 3u);
  EXPECT_EQ(similar[0].index, 0u);
  EXPECT_EQ(similar[1].index, 2u);
  EXPECT_EQ(similar[2].index, 3u);
  EXPECT_TRUE(RougePool().most_similar("a", 3).empty());
}

}  // namespace
}  // namespace potstill
