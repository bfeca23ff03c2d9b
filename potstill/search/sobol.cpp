#include "potstill/search/sobol.h"

#include <algorithm>
#include <array>
#include <bit>

namespace potstill {
namespace {

constexpr int kBits = 32;
using Directions = std::array<uint32_t, kBits>;

// A primitive polynomial over GF(2), its bits from the highest power down, and the first direction numbers.
struct JoeKuo {
  uint32_t polynomial;
  std::array<uint32_t, 7> first;
};
constexpr JoeKuo kTable[kSobolDimensions] = {
    {1, {1}},
    {3, {1}},
    {7, {1, 3}},
    {11, {1, 3, 1}},
    {13, {1, 1, 1}},
    {19, {1, 1, 3, 3}},
    {25, {1, 3, 5, 13}},
    {37, {1, 1, 5, 5, 17}},
    {41, {1, 1, 5, 5, 5}},
    {47, {1, 1, 7, 11, 19}},
    {55, {1, 1, 5, 1, 1}},
    {59, {1, 1, 1, 3, 11}},
    {61, {1, 3, 5, 5, 31}},
    {67, {1, 3, 3, 9, 7, 49}},
    {91, {1, 1, 1, 15, 21, 21}},
    {97, {1, 3, 1, 13, 27, 49}},
    {103, {1, 1, 1, 15, 7, 5}},
    {109, {1, 3, 1, 15, 13, 25}},
    {115, {1, 1, 5, 5, 19, 61}},
    {131, {1, 3, 7, 11, 23, 15, 103}},
    {137, {1, 3, 7, 13, 13, 15, 69}},
    {143, {1, 1, 3, 13, 7, 35, 63}},
    {145, {1, 3, 5, 9, 1, 25, 53}},
    {157, {1, 3, 1, 13, 9, 35, 107}},
    {167, {1, 3, 1, 5, 27, 61, 31}},
    {171, {1, 1, 5, 11, 19, 41, 61}},
    {185, {1, 3, 5, 3, 3, 13, 69}},
    {191, {1, 1, 7, 13, 1, 19, 1}},
    {193, {1, 3, 7, 5, 13, 19, 59}},
    {203, {1, 1, 3, 9, 25, 29, 41}},
    {211, {1, 3, 5, 13, 23, 1, 55}},
    {213, {1, 3, 7, 3, 13, 59, 17}},
};

Directions directions(size_t dimension) {
  Directions v{};
  if (dimension == 0) {
    for (int i = 0; i < kBits; ++i) v[i] = 1u << (kBits - 1 - i);
    return v;
  }
  const auto& [polynomial, first] = kTable[dimension];
  const int degree = std::bit_width(polynomial) - 1;
  for (int i = 0; i < kBits; ++i) {
    if (i < degree) {
      v[i] = first[static_cast<size_t>(i)] << (kBits - 1 - i);
      continue;
    }
    v[i] = v[i - degree] ^ (v[i - degree] >> degree);
    for (int k = 1; k < degree; ++k) {
      if ((polynomial >> (degree - k)) & 1u) v[i] ^= v[i - k];
    }
  }
  return v;
}

std::vector<UnitPoint> points_of(const std::vector<Directions>& all, const std::vector<uint32_t>& shifts,
                                 size_t count) {
  std::vector<UnitPoint> points(count, UnitPoint(all.size()));
  for (size_t d = 0; d < all.size(); ++d) {
    uint32_t x = shifts[d];
    for (size_t i = 0; i < count; ++i) {
      points[i][d] = static_cast<double>(x) * 0x1p-32;
      x ^= all[d][static_cast<size_t>(std::countr_one(i))];  // Gray code order
    }
  }
  return points;
}

// A random lower triangular matrix over GF(2) with ones on its diagonal, applied to every direction number.
Directions scrambled(const Directions& v, Rng& rng) {
  Directions rows{};  // row b of the matrix, as a mask over the bits of the input from the highest down
  for (int b = 0; b < kBits; ++b) {
    const auto diagonal = 1u << (kBits - 1 - b);
    const auto above = ~(diagonal | (diagonal - 1));
    rows[b] = (static_cast<uint32_t>(rng.next() >> 32) & above) | diagonal;
  }
  Directions result{};
  for (int i = 0; i < kBits; ++i) {
    for (int b = 0; b < kBits; ++b) {
      if (std::popcount(rows[b] & v[i]) & 1) result[i] |= 1u << (kBits - 1 - b);
    }
  }
  return result;
}

}  // namespace

std::vector<UnitPoint> sobol_points(size_t dimensions, size_t count) {
  std::vector<Directions> all;
  for (size_t d = 0; d < dimensions; ++d) all.push_back(directions(d));
  return points_of(all, std::vector<uint32_t>(dimensions, 0), count);
}

std::vector<UnitPoint> scrambled_sobol_points(size_t dimensions, size_t count, Rng& rng) {
  std::vector<Directions> all;
  std::vector<uint32_t> shifts;
  for (size_t d = 0; d < std::min(dimensions, kSobolDimensions); ++d) {
    all.push_back(scrambled(directions(d), rng));
    shifts.push_back(static_cast<uint32_t>(rng.next() >> 32));
  }
  auto points = points_of(all, shifts, count);
  for (auto& point : points) {
    while (point.size() < dimensions) point.push_back(rng.uniform());
  }
  return points;
}

}  // namespace potstill
