// Time to take many pairs into D_gen one by one, each compared with all before it: ROUGE-L twice and MinHash, as synth
// does.
//
//   novelty_bench [COUNT=50000] [TEXTS.txt]
//
// The pairs are cut out of TEXTS.txt (a question of 12 words and an answer of 15, in the order of the text), or drawn
// from 20,000 words after Zipf's law. Prints how many were new and the time, of the pool and of a plain scan of its
// first texts.
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string>
#include <vector>

#include "potstill/base/atomic_file.h"
#include "potstill/base/rng.h"
#include "potstill/synth/novelty.h"

namespace {

using potstill::Rng;

std::vector<std::string> zipf_words(size_t count) {
  constexpr size_t kVocabulary = 20'000;
  std::vector<double> reach;
  double sum = 0;
  for (size_t rank = 1; rank <= kVocabulary; ++rank) reach.push_back(sum += 1.0 / static_cast<double>(rank));
  Rng rng(1, "novelty_bench");
  std::vector<std::string> words;
  while (words.size() < count) {
    const auto at = std::ranges::lower_bound(reach, rng.uniform() * sum) - reach.begin();
    words.push_back(fmt::format("w{}", at));
  }
  return words;
}

std::vector<std::string> words_of_file(const std::string& path) {
  const std::string text = potstill::read_file(path);
  std::vector<std::string> words(1);
  for (const char c : text) {
    if (c == ' ' || c == '\n') {
      if (!words.back().empty()) words.emplace_back();
    } else {
      words.back() += c;
    }
  }
  return words;
}

std::string joined(const std::vector<std::string>& words, size_t begin, size_t count) {
  std::string text;
  for (size_t i = begin; i < begin + count; ++i) text += words[i % words.size()] + " ";
  return text;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

int main(int argc, char** argv) {
  constexpr size_t kQuestion = 12, kAnswer = 15;
  const size_t count = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 50'000;
  const auto words = argc > 2 ? words_of_file(argv[2]) : zipf_words(count * (kQuestion + kAnswer));
  if (argc > 2 && words.size() < count * (kQuestion + kAnswer)) {
    fmt::print("{} holds {} words: pairs repeat after {}\n", argv[2], words.size(),
               words.size() / (kQuestion + kAnswer));
  }
  potstill::NoveltyPool pool(0.7, 0.8);
  size_t fresh = 0;
  const auto start = std::chrono::steady_clock::now();
  for (size_t i = 0; i < count; ++i) {
    const size_t begin = i * (kQuestion + kAnswer);
    const std::string question = joined(words, begin, kQuestion);
    const std::string whole = question + joined(words, begin + kQuestion, kAnswer);
    if (pool.nearest(question, whole)) continue;
    pool.add(question, whole);
    ++fresh;
  }
  fmt::print("{} pairs, {} new: {:.1f} s on one thread, {:.3f} ms a pair\n", count, fresh, seconds_since(start),
             1e3 * seconds_since(start) / static_cast<double>(count));
  // What the inverted lists save: every text of a pool of 2,000 compared with all.
  potstill::RougePool plain;
  for (size_t i = 0; i < 2000; ++i) plain.add(joined(words, i * (kQuestion + kAnswer), kQuestion + kAnswer));
  const auto scan = std::chrono::steady_clock::now();
  double sum = 0;
  for (size_t i = 0; i < 200; ++i) sum += plain.mean(joined(words, i * (kQuestion + kAnswer), kQuestion + kAnswer));
  fmt::print("a bit-parallel ROUGE-L: {:.0f} ns (mean {:.3f})\n", 1e9 * seconds_since(scan) / (200.0 * 2000),
             sum / 200);
  return 0;
}
