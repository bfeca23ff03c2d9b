// MinHash with locality-sensitive hashing: which of many texts share most of their word runs with a new one.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace potstill {

// Lower-case words as rouge_words cuts them, in runs of kShingleWords; a text of fewer words is one run. Ascending
// 64-bit hashes, each once.
std::vector<uint64_t> shingles(std::string_view text);

// |a ∩ b| / |a ∪ b| of two ascending lists without repeats; 1 for two empty ones.
double jaccard(const std::vector<uint64_t>& a, const std::vector<uint64_t>& b);

// Broder 1997: of h(x) = (a x + b) mod 2⁶¹ - 1, the least over a set's members is the same for two sets with the
// probability of their Jaccard similarity. 128 such functions stand in 16 bands of 8: sets that agree in a whole band
// are candidates (half of those with similarity (1/16)^(1/8) = 0.71), and candidates are compared exactly.
class MinHashIndex {
 public:
  static constexpr size_t kShingleWords = 3, kHashes = 128, kBands = 16, kRows = kHashes / kBands;

  explicit MinHashIndex(uint64_t seed = 1);
  size_t add(std::string_view text);  // its index
  size_t size() const { return sets_.size(); }

  struct Nearest {
    double similarity;
    size_t index;
  };
  // The most similar text of at least `at_least` among the candidates (of equals the first added), if there is one.
  std::optional<Nearest> nearest(std::string_view text, double at_least) const;

  std::vector<uint64_t> signature(const std::vector<uint64_t>& set) const;  // [kHashes]

 private:
  std::vector<uint64_t> a_, b_;              // [kHashes]
  std::vector<std::vector<uint64_t>> sets_;  // shingles by index
  std::unordered_map<uint64_t, std::vector<uint32_t>> buckets_[kBands];
};

}  // namespace potstill
