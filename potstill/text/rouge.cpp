#include "potstill/text/rouge.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <span>

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
  texts_with_.resize(word_numbers_.size());
  for (size_t i = 0; i < words.size(); ++i) {
    if (i == 0 || words[i] != words[i - 1]) texts_with_[words[i]].push_back(static_cast<uint32_t>(texts_.size() - 1));
  }
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

// Prefix filter (Chaudhuri, Ganti and Kaushik, "A primitive operator for similarity joins", 2006). F = 2 L / (m + n) of
// at least t needs L >= t (m + n) / 2 and, as L <= n, n >= t m / (2 - t): so at least c = t m / (2 - t) of the m words
// are common, and of any m - c + k of them k are. Words get their numbers as they first appear, so high numbers are
// mostly rare: the highest have the shortest lists. k grows from 1 while that at most doubles the entries to count, as
// every unit spares most of the texts their comparison.
std::vector<uint32_t> RougePool::candidates(const Words& sorted, double score) const {
  std::vector<uint32_t> found;
  const auto m = static_cast<double>(sorted.size());
  constexpr double kRounding = 1e-9;  // F itself is rounded
  const auto common = static_cast<size_t>(std::max(1.0, std::ceil(score * m / (2 - score) - kRounding * m)));
  if (sorted.size() < common) return found;
  const auto texts_with = [&](size_t i) -> std::span<const uint32_t> {
    if (sorted[i] == UINT32_MAX || (i + 1 < sorted.size() && sorted[i + 1] == sorted[i])) return {};
    return texts_with_[sorted[i]];
  };
  size_t first = common - 1, needed = 1, entries = 0;
  for (size_t i = first; i < sorted.size(); ++i) entries += texts_with(i).size();
  for (const size_t most = 2 * entries; needed < common; --first, ++needed) {
    entries += texts_with(first - 1).size();
    if (entries > most) break;
  }
  // A word that stands r times in these may be r of the common ones.
  std::vector<uint16_t> count(texts_.size());
  size_t repeats = 0;
  for (size_t i = first; i < sorted.size(); ++i) {
    repeats = i > first && sorted[i] == sorted[i - 1] ? repeats + 1 : 1;
    const size_t step = std::min(repeats, needed);
    for (const uint32_t text : texts_with(i)) {
      count[text] = static_cast<uint16_t>(std::min<size_t>(count[text] + step, UINT16_MAX));
    }
  }
  const size_t least = std::min<size_t>(needed, UINT16_MAX);
  for (size_t text = 0; text < count.size(); ++text) {
    if (count[text] >= least) found.push_back(static_cast<uint32_t>(text));
  }
  return found;
}

RougePool::Nearest RougePool::nearest(std::string_view text, double at_least) const {
  const Words words = known_words(text);
  const Pattern pattern(words);
  Words sorted = words;
  std::sort(sorted.begin(), sorted.end());
  Nearest best;
  const auto can_win = [&](double bound) { return bound > best.score && bound >= at_least; };
  std::vector<uint32_t> looked_at;
  if (at_least > 0) {
    looked_at = candidates(sorted, at_least);
  } else {
    looked_at.resize(texts_.size());
    std::iota(looked_at.begin(), looked_at.end(), 0u);
  }
  for (const uint32_t i : looked_at) {
    const size_t size = texts_[i].size();
    if (!can_win(f_measure(std::min(size, words.size()), words.size(), size))) continue;
    if (!can_win(f_measure(shared_words(sorted, sorted_[i]), words.size(), size))) continue;
    const double score = f_measure(pattern.lcs(texts_[i]), words.size(), size);
    if (can_win(score)) best = {score, i};
  }
  return best;
}

std::vector<RougePool::Nearest> RougePool::at_least(std::string_view text, double score) const {
  const Words words = known_words(text);
  const Pattern pattern(words);
  Words sorted = words;
  std::sort(sorted.begin(), sorted.end());
  std::vector<Nearest> found;
  for (const uint32_t i : candidates(sorted, score)) {
    const size_t size = texts_[i].size();
    if (f_measure(shared_words(sorted, sorted_[i]), words.size(), size) < score) continue;
    const double exact = f_measure(pattern.lcs(texts_[i]), words.size(), size);
    if (exact >= score) found.push_back({exact, i});
  }
  return found;
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
