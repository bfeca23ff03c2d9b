// Scrambled Sobol points: they cover the unit cube more evenly than independent draws, whatever their number.
#pragma once

#include <cstdint>
#include <vector>

#include "potstill/base/rng.h"
#include "potstill/search/unit_cube.h"

namespace potstill {

inline constexpr size_t kSobolDimensions = 32;  // coordinates past these are drawn independently

// The first `count` points in `dimensions` coordinates, the origin first.  Direction numbers: S. Joe and F. Y. Kuo,
// "Constructing Sobol sequences with better two-dimensional projections", 2008, table D(6).
std::vector<UnitPoint> sobol_points(size_t dimensions, size_t count);
// The same after a random linear scramble of each coordinate's bits and a random shift (Matoušek 1998): every point is
// uniform in the cube, the evenness stays.
std::vector<UnitPoint> scrambled_sobol_points(size_t dimensions, size_t count, Rng& rng);

}  // namespace potstill
