// ROUGE-L of rouge-score without stemming: the F-measure of the longest common subsequence of words.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace potstill {

// Lower-case runs of [a-z0-9]; all else, letters beyond ASCII too, separates (as rouge-score cuts after str.lower()).
std::vector<std::string> rouge_words(std::string_view text);

// F = 2PR / (P + R) with P = L / |candidate|, R = L / |reference|; 0 where nothing is common. In [0, 1], symmetric.
double rouge_l(std::string_view candidate, std::string_view reference);

// Texts that were accepted, and how near a new one comes to them. Not thread-safe while adding.
class RougePool {
 public:
  // Returns the text's index in the pool.
  size_t add(std::string_view text);
  size_t size() const { return texts_.size(); }

  struct Nearest {
    double score = 0;
    size_t index = 0;  // of the first text with this score; meaningless at score 0
  };
  // The highest ROUGE-L against the pool. Texts that cannot beat `at_least` or the best so far by their length or by
  // the words they share are passed over; a result below `at_least` is reported as score 0. With at_least > 0 only
  // texts that share one of the rarer words are looked at, which is what makes a pool of many thousands quick.
  Nearest nearest(std::string_view text, double at_least = 0) const;
  // All texts with a ROUGE-L of `score` or more, in the order in which they were added; score > 0.
  std::vector<Nearest> at_least(std::string_view text, double score) const;
  // The `count` most similar texts, the highest score first, and of equal scores the first added.
  std::vector<Nearest> most_similar(std::string_view text, size_t count) const;
  // The mean ROUGE-L against the pool; 0 for an empty one.
  double mean(std::string_view text) const;

 private:
  using Words = std::vector<uint32_t>;
  // A text prepared for many comparisons: for each of its words the positions as bits.
  class Pattern;

  Words known_words(std::string_view text) const;
  std::vector<uint32_t> candidates(const Words& sorted, double score) const;

  std::unordered_map<std::string, uint32_t> word_numbers_;
  std::vector<Words> texts_;                       // in the order of the text
  std::vector<Words> sorted_;                      // the same words, ascending, for the bound by shared words
  std::vector<std::vector<uint32_t>> texts_with_;  // by word: indices of the texts that hold it, ascending
};

}  // namespace potstill
