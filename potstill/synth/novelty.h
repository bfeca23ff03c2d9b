// Novelty: what is in D_gen already, and whether a pair says something new.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "potstill/text/minhash.h"
#include "potstill/text/rouge.h"

namespace potstill {

// A pair is not new when ROUGE-L reaches `max_rouge` against one that is in, by the content words of the questions or
// by question and answer as a whole, or when they share `max_jaccard` of their word runs (MinHash). Content words,
// since "What is a cloud?" and "What is a fossil?" have three of four words in common and nothing else.
class NoveltyPool {
 public:
  NoveltyPool(double max_rouge, double max_jaccard) : max_rouge_(max_rouge), max_jaccard_(max_jaccard) {}

  // The question that (question, answer) is too near to, if there is one. `whole` is all of the pair's text.
  std::optional<std::string> nearest(std::string_view question, std::string_view whole) const;
  void add(std::string_view question, std::string_view whole);

 private:
  double max_rouge_, max_jaccard_;
  std::vector<std::string> questions_;
  RougePool topics_, wholes_;
  MinHashIndex runs_;
};

}  // namespace potstill
