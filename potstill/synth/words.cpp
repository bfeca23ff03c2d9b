#include "potstill/synth/words.h"

#include <algorithm>
#include <array>
#include <cctype>

namespace potstill {
namespace {

bool is_word_byte(char c) { return std::isalnum(static_cast<unsigned char>(c)) || static_cast<signed char>(c) < 0; }

// Sorted, for binary search.
constexpr auto kStopWords = std::to_array<std::string_view>({
    "a",     "about",   "after", "all",    "also",    "am",   "an",   "and",  "any",   "are",   "as",   "at",
    "be",    "because", "been",  "before", "being",   "but",  "by",   "can",  "could", "did",   "do",   "does",
    "doing", "done",    "for",   "from",   "get",     "had",  "has",  "have", "he",    "her",   "his",  "how",
    "i",     "if",      "in",    "into",   "is",      "it",   "its",  "just", "like",  "many",  "may",  "me",
    "might", "more",    "most",  "much",   "my",      "of",   "on",   "onto", "or",    "our",   "out",  "over",
    "she",   "should",  "so",    "some",   "such",    "than", "that", "the",  "their", "them",  "then", "there",
    "these", "they",    "this",  "those",  "through", "to",   "up",   "us",   "very",  "was",   "we",   "were",
    "what",  "when",    "where", "which",  "while",   "who",  "why",  "will", "with",  "would", "you",  "your",
});
static_assert(std::ranges::is_sorted(kStopWords));

constexpr auto kNegations = std::to_array<std::string_view>(
    {"cannot", "neither", "never", "no", "none", "nor", "not", "nothing", "unable", "without"});

}  // namespace

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  for (size_t i = 0; i <= text.size(); ++i) {
    if (i < text.size() && is_word_byte(text[i])) {
      word += static_cast<char>(std::tolower(static_cast<unsigned char>(text[i])));
    } else if (i + 1 < text.size() && text[i] == '\'' && !word.empty() && is_word_byte(text[i + 1])) {
      word += '\'';
    } else if (!word.empty()) {
      words.push_back(std::move(word));
      word.clear();
    }
  }
  return words;
}

std::string stem(std::string_view word) {
  if (word.ends_with("'s")) word.remove_suffix(2);
  std::string base(word);
  const auto cut = [&base](std::string_view ending, size_t keep) {
    if (!base.ends_with(ending) || base.size() < ending.size() + keep) return false;
    base.resize(base.size() - ending.size());
    return true;
  };
  if (cut("ies", 2)) {
    base += 'y';
  } else if (!base.ends_with("ss") && !base.ends_with("us")) {
    cut("s", 3);
  }
  const bool was_verb_form = cut("ing", 3) || cut("ed", 3);
  const auto doubled = base.size() > 3 && base[base.size() - 1] == base[base.size() - 2];
  if (was_verb_form && doubled && base.back() != 'l' && base.back() != 's') base.pop_back();  // "spinn" -> "spin"
  if (base.size() > 3 && base.ends_with("e")) base.pop_back();  // "move" meets "mov", which "moving" leaves
  return base;
}

std::vector<std::string> content_stems(std::string_view text) {
  std::vector<std::string> stems;
  for (const auto& word : words_of(text)) {
    if (!std::ranges::binary_search(kStopWords, word)) stems.push_back(stem(word));
  }
  return stems;
}

bool has_negation(std::string_view text) {
  return std::ranges::any_of(words_of(text), [](const std::string& word) {
    return word.ends_with("n't") || std::ranges::binary_search(kNegations, word);
  });
}

std::vector<std::string> numerals_of(std::string_view text) {
  std::vector<std::string> numerals;
  for (auto& word : words_of(text)) {
    if (std::ranges::any_of(word, [](char c) { return c >= '0' && c <= '9'; })) numerals.push_back(std::move(word));
  }
  return numerals;
}

}  // namespace potstill
