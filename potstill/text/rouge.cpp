#include "potstill/text/rouge.h"

#include <algorithm>
#include <bit>

namespace potstill {
namespace {

double f_measure(size_t common, size_t candidate, size_t reference) {
  if (common == 0) return 0;
  const double precision = static_cast<double>(common) / static_cast<double>(candidate);
  const double recall = static_cast<double>(common) / static_cast<double>(reference);
  return 2 * precision * recall / (precision + recall);
}

// Size of the common multiset of two ascending lists: no common subsequence is longer.
size_t shared_words(const std::vector<uint32_t>& a, const std::vector<uint32_t>& b) {
  size_t shared = 0;
  for (auto i = a.begin(), j = b.begin(); i != a.end() && j != b.end();) {
    if (*i == *j) ++shared;
    const bool step_i = *i <= *j, step_j = *j <= *i;
    i += step_i;
    j += step_j;
  }
  return shared;
}

}  // namespace

std::vector<std::string> rouge_words(std::string_view text) {
  std::vector<std::string> words;
  bool inside = false;
  const auto put = [&](char c) {
    if (!inside) words.emplace_back();
    words.back() += c;
    inside = true;
  };
  for (size_t i = 0; i < text.size(); ++i) {
    const char lower = text[i] >= 'A' && text[i] <= 'Z' ? static_cast<char>(text[i] | 0x20) : text[i];
    if ((lower >= 'a' && lower <= 'z') || (lower >= '0' && lower <= '9')) {
      put(lower);
    } else if (text.substr(i, 3) == "\u212A") {  // Python lowers the Kelvin sign to k …
      put('k');
      i += 2;
    } else {
      if (text.substr(i, 2) == "\u0130") put('i');  // … and I with a dot to i and a combining dot
      inside = false;
    }
  }
  return words;
}

// LCS length, 64 cells of the dynamic programme at a time: Hyyrö, "Bit-parallel LCS-length computation revisited",
// 2004: V' = (V + (V & M)) | (V & ~M), started at all ones; the zeros that remain are the length.
class RougePool::Pattern {
 public:
  explicit Pattern(const Words& words) : size_(words.size()), num_blocks_((words.size() + 63) / 64) {
    for (size_t i = 0; i < words.size(); ++i) {
      const auto [row, is_new] = rows_.try_emplace(words[i], masks_.size());
      if (is_new) masks_.resize(masks_.size() + num_blocks_);
      masks_[row->second + i / 64] |= uint64_t{1} << i % 64;
    }
  }

  size_t lcs(const Words& other) const {
    std::vector<uint64_t> v(num_blocks_, ~uint64_t{0});
    for (const uint32_t word : other) {
      const auto row = rows_.find(word);
      if (row == rows_.end()) continue;
      uint64_t carry = 0;
      for (size_t block = 0; block < num_blocks_; ++block) {
        const uint64_t mask = masks_[row->second + block], both = v[block] & mask;
        const uint64_t partial = v[block] + both, sum = partial + carry;
        carry = partial < both || sum < partial;
        v[block] = sum | (v[block] & ~mask);
      }
    }
    size_t length = 0;
    for (size_t block = 0; block < num_blocks_; ++block) {
      const size_t bits = std::min<size_t>(64, size_ - block * 64);
      const uint64_t used = bits == 64 ? ~uint64_t{0} : (uint64_t{1} << bits) - 1;
      length += static_cast<size_t>(std::popcount(~v[block] & used));
    }
    return length;
  }

  size_t size() const { return size_; }

 private:
  size_t size_, num_blocks_;
  std::unordered_map<uint32_t, size_t> rows_;  // word -> its first block in masks_
  std::vector<uint64_t> masks_;
};

double rouge_l(std::string_view candidate, std::string_view reference) {
  RougePool pool;
  pool.add(reference);
  return pool.nearest(candidate).score;
}

size_t RougePool::add(std::string_view text) {
  Words words;
  for (const std::string& word : rouge_words(text)) {
    words.push_back(word_numbers_.try_emplace(word, static_cast<uint32_t>(word_numbers_.size())).first->second);
  }
  texts_.push_back(words);
  std::sort(words.begin(), words.end());
  sorted_.push_back(std::move(words));
  return texts_.size() - 1;
}

// Words that the pool has never seen match nothing, and still count in the text's length.
RougePool::Words RougePool::known_words(std::string_view text) const {
  Words words;
  for (const std::string& word : rouge_words(text)) {
    const auto found = word_numbers_.find(word);
    words.push_back(found == word_numbers_.end() ? UINT32_MAX : found->second);
  }
  return words;
}

RougePool::Nearest RougePool::nearest(std::string_view text, double at_least) const {
  const Words words = known_words(text);
  const Pattern pattern(words);
  Words sorted = words;
  std::sort(sorted.begin(), sorted.end());
  Nearest best;
  const auto can_win = [&](double bound) { return bound > best.score && bound >= at_least; };
  for (size_t i = 0; i < texts_.size(); ++i) {
    const size_t size = texts_[i].size();
    if (!can_win(f_measure(std::min(size, words.size()), words.size(), size))) continue;
    if (!can_win(f_measure(shared_words(sorted, sorted_[i]), words.size(), size))) continue;
    const double score = f_measure(pattern.lcs(texts_[i]), words.size(), size);
    if (can_win(score)) best = {score, i};
  }
  return best;
}

std::vector<RougePool::Nearest> RougePool::most_similar(std::string_view text, size_t count) const {
  const Pattern pattern(known_words(text));
  std::vector<Nearest> all;
  all.reserve(texts_.size());
  for (size_t i = 0; i < texts_.size(); ++i) {
    all.push_back({f_measure(pattern.lcs(texts_[i]), pattern.size(), texts_[i].size()), i});
  }
  count = std::min(count, all.size());
  std::partial_sort(
      all.begin(), all.begin() + static_cast<std::ptrdiff_t>(count), all.end(),
      [](const Nearest& a, const Nearest& b) { return a.score != b.score ? a.score > b.score : a.index < b.index; });
  all.resize(count);
  return all;
}

double RougePool::mean(std::string_view text) const {
  const Pattern pattern(known_words(text));
  double sum = 0;
  for (const Words& words : texts_) sum += f_measure(pattern.lcs(words), pattern.size(), words.size());
  return texts_.empty() ? 0 : sum / static_cast<double>(texts_.size());
}

}  // namespace potstill
