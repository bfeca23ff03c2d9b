#include "potstill/search/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "potstill/search/unit_cube.h"

namespace potstill {
namespace {

std::vector<UnitPoint> latin_hypercube(size_t dimensions, size_t count, Rng& rng) {
  std::vector<UnitPoint> points(count, UnitPoint(dimensions));
  std::vector<size_t> strata(count);
  for (size_t d = 0; d < dimensions; ++d) {
    std::iota(strata.begin(), strata.end(), size_t{0});
    rng.shuffle(strata);
    for (size_t i = 0; i < count; ++i) {
      points[i][d] = (static_cast<double>(strata[i]) + rng.uniform()) / static_cast<double>(count);
    }
  }
  return points;
}

double least_distance(const std::vector<UnitPoint>& points) {
  double least = std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < points.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      double sum = 0.0;
      for (size_t d = 0; d < points[i].size(); ++d) sum += std::pow(points[i][d] - points[j][d], 2);
      least = std::min(least, sum);
    }
  }
  return least;
}

}  // namespace

Params sample_uniformly(const Space& space, Rng& rng) {
  Params point;
  for (const auto& [name, distribution] : space) point[name] = from_unit(distribution, rng.uniform());
  return point;
}

Params RandomSampler::sample(const Space& space, std::span<const PastTrial>, int64_t, Rng& rng) const {
  return sample_uniformly(space, rng);
}

std::vector<Params> start_points(const Space& space, int64_t count, uint64_t seed) {
  constexpr int kDesigns = 64;
  Rng rng(seed, "search/start");
  std::vector<UnitPoint> best;
  double best_distance = -1.0;
  for (int i = 0; i < kDesigns; ++i) {
    auto design = latin_hypercube(space.size(), static_cast<size_t>(count), rng);
    const double distance = least_distance(design);
    if (distance > best_distance) {
      best_distance = distance;
      best = std::move(design);
    }
  }
  std::vector<Params> points;
  for (const auto& unit : best) points.push_back(params_from_unit(space, unit));
  return points;
}

}  // namespace potstill
