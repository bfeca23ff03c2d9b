#include "potstill/text/minhash.h"

#include <algorithm>
#include <array>

#include "potstill/base/rng.h"
#include "potstill/text/rouge.h"

namespace potstill {
namespace {

constexpr uint64_t kPrime = (uint64_t{1} << 61) - 1;

uint64_t mul_add_mod(uint64_t a, uint64_t x, uint64_t b) {
  const __uint128_t product = static_cast<__uint128_t>(a) * x + b;
  const uint64_t folded = static_cast<uint64_t>(product & kPrime) + static_cast<uint64_t>(product >> 61);
  return folded >= kPrime ? folded - kPrime : folded;
}

// FNV-1a over the words, with a mark after each.
uint64_t hash_words(const std::vector<std::string>& words, size_t begin, size_t end) {
  uint64_t hash = 0xcbf29ce484222325;
  const auto put = [&hash](unsigned char byte) { hash = (hash ^ byte) * 0x100000001b3; };
  for (size_t i = begin; i < end; ++i) {
    for (const char c : words[i]) put(static_cast<unsigned char>(c));
    put(' ');
  }
  return hash;
}

uint64_t band_key(const uint64_t* rows) {
  uint64_t key = 0;
  for (size_t i = 0; i < MinHashIndex::kRows; ++i) key = (key ^ rows[i]) * 0x9e3779b97f4a7c15 + (key >> 29);
  return key;
}

}  // namespace

std::vector<uint64_t> shingles(std::string_view text) {
  const auto words = rouge_words(text);
  std::vector<uint64_t> set;
  const size_t width = std::min(MinHashIndex::kShingleWords, words.size());
  for (size_t i = 0; width > 0 && i + width <= words.size(); ++i) set.push_back(hash_words(words, i, i + width));
  std::ranges::sort(set);
  set.erase(std::ranges::unique(set).begin(), set.end());
  return set;
}

double jaccard(const std::vector<uint64_t>& a, const std::vector<uint64_t>& b) {
  if (a.empty() && b.empty()) return 1.0;
  size_t common = 0;
  for (auto i = a.begin(), j = b.begin(); i != a.end() && j != b.end();) {
    common += *i == *j;
    const bool step_i = *i <= *j, step_j = *j <= *i;
    i += step_i;
    j += step_j;
  }
  return static_cast<double>(common) / static_cast<double>(a.size() + b.size() - common);
}

MinHashIndex::MinHashIndex(uint64_t seed) {
  Rng rng(seed, "text/minhash");
  for (size_t i = 0; i < kHashes; ++i) {
    a_.push_back(1 + rng.below(kPrime - 1));
    b_.push_back(rng.below(kPrime));
  }
}

std::vector<uint64_t> MinHashIndex::signature(const std::vector<uint64_t>& set) const {
  std::vector<uint64_t> least(kHashes, kPrime);
  for (const uint64_t member : set) {
    const uint64_t x = member % kPrime;
    for (size_t i = 0; i < kHashes; ++i) least[i] = std::min(least[i], mul_add_mod(a_[i], x, b_[i]));
  }
  return least;
}

size_t MinHashIndex::add(std::string_view text) {
  sets_.push_back(shingles(text));
  const auto rows = signature(sets_.back());
  for (size_t band = 0; band < kBands; ++band) {
    buckets_[band][band_key(rows.data() + band * kRows)].push_back(static_cast<uint32_t>(sets_.size() - 1));
  }
  return sets_.size() - 1;
}

std::optional<MinHashIndex::Nearest> MinHashIndex::nearest(std::string_view text, double at_least) const {
  const auto set = shingles(text);
  const auto rows = signature(set);
  std::vector<uint32_t> candidates;
  for (size_t band = 0; band < kBands; ++band) {
    const auto found = buckets_[band].find(band_key(rows.data() + band * kRows));
    if (found != buckets_[band].end()) candidates.insert(candidates.end(), found->second.begin(), found->second.end());
  }
  std::ranges::sort(candidates);
  candidates.erase(std::ranges::unique(candidates).begin(), candidates.end());
  std::optional<Nearest> best;
  for (const uint32_t index : candidates) {
    const double similarity = jaccard(set, sets_[index]);
    if (similarity >= at_least && (!best || similarity > best->similarity)) best = Nearest{similarity, index};
  }
  return best;
}

}  // namespace potstill
