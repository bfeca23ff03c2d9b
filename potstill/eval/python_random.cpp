#include "potstill/eval/python_random.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <set>

#include "potstill/base/check.h"

namespace potstill {

PythonRandom::PythonRandom(uint32_t seed) {
  // init_genrand(19650218), then init_by_array with the key [seed].
  state_[0] = 19650218u;
  for (size_t i = 1; i < kWords; ++i) {
    state_[i] = 1812433253u * (state_[i - 1] ^ (state_[i - 1] >> 30)) + static_cast<uint32_t>(i);
  }
  size_t i = 1;
  const auto advance = [&] {
    if (++i < kWords) return;
    state_[0] = state_[kWords - 1];
    i = 1;
  };
  for (size_t step = 0; step < kWords; ++step) {
    state_[i] = (state_[i] ^ ((state_[i - 1] ^ (state_[i - 1] >> 30)) * 1664525u)) + seed;  // key index is always 0
    advance();
  }
  for (size_t step = 1; step < kWords; ++step) {
    state_[i] = (state_[i] ^ ((state_[i - 1] ^ (state_[i - 1] >> 30)) * 1566083941u)) - static_cast<uint32_t>(i);
    advance();
  }
  state_[0] = 0x80000000u;
}

void PythonRandom::refill() {
  constexpr size_t kShift = 397;
  for (size_t i = 0; i < kWords; ++i) {
    const uint32_t bits = (state_[i] & 0x80000000u) | (state_[(i + 1) % kWords] & 0x7fffffffu);
    state_[i] = state_[(i + kShift) % kWords] ^ (bits >> 1) ^ ((bits & 1u) != 0 ? 0x9908b0dfu : 0u);
  }
  index_ = 0;
}

uint32_t PythonRandom::next() {
  if (index_ == kWords) refill();
  uint32_t y = state_[index_++];
  y ^= y >> 11;
  y ^= (y << 7) & 0x9d2c5680u;
  y ^= (y << 15) & 0xefc60000u;
  return y ^ (y >> 18);
}

uint64_t PythonRandom::below(uint64_t n) {
  POTSTILL_CHECK(n > 0 && n < (uint64_t{1} << 32));
  const int bits = std::bit_width(n);
  uint64_t drawn = next() >> (32 - bits);
  while (drawn >= n) drawn = next() >> (32 - bits);
  return drawn;
}

std::vector<size_t> PythonRandom::sample(size_t population, size_t count) {
  POTSTILL_CHECK(count <= population);
  // A small set against a big pool: sample() counts what either would take and goes the cheaper way.
  size_t set_size = 21;
  if (count > 5) {
    size_t power = 1;
    while (power < 3 * count) power *= 4;  // 4 ** ceil(log(3 count, 4))
    set_size += power;
  }
  std::vector<size_t> drawn;
  if (population <= set_size) {
    std::vector<size_t> pool(population);
    std::iota(pool.begin(), pool.end(), size_t{0});
    for (size_t i = 0; i < count; ++i) {
      const size_t at = below(population - i);
      drawn.push_back(pool[at]);
      pool[at] = pool[population - i - 1];
    }
    return drawn;
  }
  std::set<size_t> seen;
  while (drawn.size() < count) {
    const size_t at = below(population);
    if (seen.insert(at).second) drawn.push_back(at);
  }
  return drawn;
}

}  // namespace potstill
