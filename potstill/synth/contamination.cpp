#include "potstill/synth/contamination.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "potstill/synth/words.h"

namespace potstill {
namespace {

constexpr size_t kRun = 13;               // words
constexpr double kNearQuestion = 0.7;     // ROUGE-L, as for novelty
constexpr size_t kLeastContentWords = 3;  // "Which of these is true?" alone is nobody's question

std::string joined(const std::vector<std::string>& words) { return fmt::format("{}", fmt::join(words, " ")); }
std::string normal(std::string_view text) { return joined(rouge_words(text)); }

std::vector<std::string> all_words(const BenchmarkItem& item) {
  auto words = rouge_words(item.question);
  const auto append = [&words](std::string_view text) {
    for (auto& word : rouge_words(text)) words.push_back(std::move(word));
  };
  for (const auto& option : item.options) append(option);
  if (item.options.empty()) append(item.answer);
  return words;
}

// FNV-1a of kRun words, each with a mark after it.
uint64_t hash_run(const std::vector<std::string>& words, size_t begin) {
  uint64_t hash = 0xcbf29ce484222325;
  const auto put = [&hash](unsigned char byte) { hash = (hash ^ byte) * 0x100000001b3; };
  for (size_t i = begin; i < begin + kRun; ++i) {
    for (const char c : words[i]) put(static_cast<unsigned char>(c));
    put(' ');
  }
  return hash;
}

std::set<std::string> option_set(const BenchmarkItem& item) {
  std::set<std::string> options;
  for (const auto& option : item.options) options.insert(normal(option));
  return options;
}

bool answers_agree(const BenchmarkItem& a, const BenchmarkItem& b) {
  const std::string left = normal(a.answer), right = normal(b.answer);
  if (!left.empty() && left == right) return true;
  const auto of_a = option_set(a), of_b = option_set(b);
  if (of_a.size() < 2 || of_b.size() < 2) return false;
  const auto common = static_cast<size_t>(std::ranges::count_if(of_a, [&](const auto& o) { return of_b.contains(o); }));
  return 2 * common >= std::max(of_a.size(), of_b.size());
}

}  // namespace

void ContaminationIndex::add(BenchmarkItem item) {
  const auto index = static_cast<uint32_t>(items_.size());
  const auto words = all_words(item);
  for (size_t i = 0; i + kRun <= words.size(); ++i) runs_.emplace(hash_run(words, i), index);
  by_question_[normal(item.question)].push_back(index);
  questions_.add(item.question);
  items_.push_back(std::move(item));
}

// The hash finds the row, the words decide.
std::optional<ContaminationIndex::Match> ContaminationIndex::shared_run(const std::vector<std::string>& words) const {
  for (size_t i = 0; i + kRun <= words.size(); ++i) {
    const auto found = runs_.find(hash_run(words, i));
    if (found == runs_.end()) continue;
    const BenchmarkItem& item = items_[found->second];
    const auto row = all_words(item);
    const std::vector<std::string> run(words.begin() + static_cast<ptrdiff_t>(i),
                                       words.begin() + static_cast<ptrdiff_t>(i + kRun));
    if (!std::ranges::search(row, run).empty()) return Match{item.where, "13-gram", joined(run)};
  }
  return std::nullopt;
}

std::optional<ContaminationIndex::Match> ContaminationIndex::match(const BenchmarkItem& pair) const {
  if (auto found = shared_run(all_words(pair))) return found;
  const bool speaks = content_stems(pair.question).size() >= kLeastContentWords;
  if (const auto same = by_question_.find(normal(pair.question)); same != by_question_.end()) {
    for (const uint32_t index : same->second) {
      if (speaks || answers_agree(pair, items_[index]))
        return Match{items_[index].where, "same question", pair.question};
    }
  }
  // Several rows may be near: any whose answers agree is a match.
  for (const auto& near : questions_.at_least(pair.question, kNearQuestion)) {
    const BenchmarkItem& item = items_[near.index];
    if (answers_agree(pair, item)) return Match{item.where, "near question", item.question};
  }
  return std::nullopt;
}

}  // namespace potstill
