// Contamination: pairs that say what a benchmark's scored rows say, so that learning them would spoil the measurement.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "potstill/text/rouge.h"

namespace potstill {

// A scored row, or a pair, as the matchers see it.
struct BenchmarkItem {
  std::string where = {};     // "arc_easy/test.jsonl:17"
  std::string question = {};  // with its context
  std::vector<std::string> options = {};
  std::string answer = {};  // the right option's text
};

class ContaminationIndex {
 public:
  void add(BenchmarkItem item);
  size_t size() const { return items_.size(); }

  struct Match {
    std::string where, matcher, shared;  // "13-gram" | "same question" | "near question"; the words in common
  };
  // The row that `pair` matches, if there is one:
  //   13-gram        they share 13 words in a row, in question, options and answer (GPT-3, arXiv:2005.14165, appendix
  //   C) same question  the questions are equal word for word and hold three content words or more, or the answers
  //   agree too near question  ROUGE-L of the questions' words is 0.7 or more, and the right answers are equal or half
  //   of the
  //                  options are common: for rows that are shorter than 13 words, as most multiple-choice rows are
  std::optional<Match> match(const BenchmarkItem& pair) const;

 private:
  std::optional<Match> shared_run(const std::vector<std::string>& words) const;
  std::vector<BenchmarkItem> items_;
  std::unordered_map<uint64_t, uint32_t> runs_;  // hash of 13 words -> item
  std::unordered_map<std::string, std::vector<uint32_t>> by_question_;
  RougePool questions_;
};

}  // namespace potstill
