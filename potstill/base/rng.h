// Rng: a named stream of random numbers, so that a draw added in one place moves no other place's numbers.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>

namespace potstill {

// xoshiro256** (Blackman and Vigna, 2018), seeded by SplitMix64 over the seed and a hash of the stream's name.
class Rng {
 public:
  using State = std::array<uint64_t, 4>;

  Rng(uint64_t seed, std::string_view stream);
  explicit Rng(const State& state) : state_(state) {}

  uint64_t next();
  double uniform();                // [0, 1), 53 bits
  uint64_t below(uint64_t bound);  // [0, bound), unbiased; bound > 0
  double normal();                 // mean 0, variance 1 (Box–Muller, one of the pair)
  const State& state() const { return state_; }

  template <class Range>
  void shuffle(Range& range) {  // Fisher–Yates
    for (uint64_t i = range.size(); i > 1; --i) std::swap(range[i - 1], range[below(i)]);
  }

  // UniformRandomBitGenerator, for the standard library's distributions where their exact values do not matter.
  using result_type = uint64_t;
  static constexpr uint64_t min() { return 0; }
  static constexpr uint64_t max() { return ~uint64_t{0}; }
  uint64_t operator()() { return next(); }

 private:
  State state_{};
};

// A 64-bit seed for a part of a run: the same for the same seed and name on every machine.
uint64_t derive_seed(uint64_t seed, std::string_view name);

}  // namespace potstill
