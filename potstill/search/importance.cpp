#include "potstill/search/importance.h"

#include <cmath>

#include "potstill/search/gaussian_process.h"
#include "potstill/search/gp_sampler.h"
#include "potstill/search/sobol.h"

namespace potstill {
namespace {

UnitPoint snapped(const Space& space, UnitPoint point) {
  size_t d = 0;
  for (const auto& [name, distribution] : space) {
    if (num_values(distribution) > 0) point[d] = to_unit(distribution, from_unit(distribution, point[d]));
    ++d;
  }
  return point;
}

}  // namespace

std::map<std::string, double> parameter_importance(const Space& space, std::span<const PastTrial> trials) {
  Space searched;
  for (const auto& [name, distribution] : space) {
    if (!is_single(distribution)) searched.emplace(name, distribution);
  }
  std::vector<UnitPoint> points;
  std::vector<double> values;
  for (const auto& trial : trials) {
    if (trial.state != TrialState::kComplete || !std::isfinite(trial.value)) continue;
    if (!std::ranges::all_of(searched, [&](const auto& item) { return trial.params.contains(item.first); })) continue;
    points.push_back(unit_from_params(searched, trial.params));
    values.push_back(trial.value);
  }
  if (values.size() < 4 || searched.empty()) return {};
  std::vector<bool> unordered;
  for (const auto& [name, distribution] : searched) unordered.push_back(is_unordered(distribution));
  values = normalised_objective(values);
  const GaussianProcess model(points, values, unordered, fit_gaussian_process(points, values, unordered));

  // Two independent sets of points out of one sequence of twice the dimensions.
  const size_t dimensions = searched.size();
  constexpr size_t kPoints = 512;
  Rng rng(0, "search/importance");
  const auto both = scrambled_sobol_points(2 * dimensions, kPoints, rng);
  std::vector<double> effects(dimensions, 0.0);
  double total = 0;
  for (const auto& pair : both) {
    const UnitPoint a = snapped(searched, {pair.begin(), pair.begin() + static_cast<std::ptrdiff_t>(dimensions)});
    const UnitPoint b = snapped(searched, {pair.begin() + static_cast<std::ptrdiff_t>(dimensions), pair.end()});
    const double at_a = model.posterior(a).mean;
    for (size_t d = 0; d < dimensions; ++d) {
      UnitPoint changed = a;
      changed[d] = b[d];
      const double difference = at_a - model.posterior(changed).mean;
      effects[d] += difference * difference;
      total += difference * difference;
    }
  }
  std::map<std::string, double> shares;
  size_t d = 0;
  for (const auto& [name, distribution] : searched) shares[name] = total > 0 ? effects[d++] / total : 0;
  return shares;
}

}  // namespace potstill
