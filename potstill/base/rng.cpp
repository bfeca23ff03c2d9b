#include "potstill/base/rng.h"

#include <bit>
#include <cmath>
#include <numbers>

namespace potstill {
namespace {

uint64_t split_mix(uint64_t& x) {
  uint64_t z = (x += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

uint64_t fnv1a(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

}  // namespace

uint64_t derive_seed(uint64_t seed, std::string_view name) {
  uint64_t x = seed;
  uint64_t y = split_mix(x) ^ fnv1a(name);
  return split_mix(y);
}

Rng::Rng(uint64_t seed, std::string_view stream) {
  uint64_t x = derive_seed(seed, stream);
  for (auto& word : state_) word = split_mix(x);
}

uint64_t Rng::next() {
  const uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
  const uint64_t t = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= t;
  state_[3] = std::rotl(state_[3], 45);
  return result;
}

double Rng::uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

uint64_t Rng::below(uint64_t bound) {
  // Values past the last whole multiple of bound would favour small results; they are drawn again.
  const uint64_t limit = max() - max() % bound;
  uint64_t draw = next();
  while (draw >= limit) draw = next();
  return draw % bound;
}

double Rng::normal() {
  const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));  // 1 - u: never log(0)
  return radius * std::cos(2.0 * std::numbers::pi * uniform());
}

}  // namespace potstill
