// Python's random.Random, where a benchmark's few-shot examples are drawn by it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace potstill {

// MT19937 seeded as random.Random(seed) is: by init_by_array([seed]).      Matsumoto and Nishimura, 1998; CPython 3.8+
class PythonRandom {
 public:
  explicit PythonRandom(uint32_t seed);

  uint32_t next();             // getrandbits(32)
  uint64_t below(uint64_t n);  // Random._randbelow(n), 0 < n < 2³²
  // random.sample(range(population), count): the indices in the order drawn; count <= population.
  std::vector<size_t> sample(size_t population, size_t count);

 private:
  static constexpr size_t kWords = 624;
  std::array<uint32_t, kWords> state_{};
  size_t index_ = kWords;

  void refill();
};

}  // namespace potstill
