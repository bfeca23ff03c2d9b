#include "potstill/search/importance.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <optional>
#include <tuple>
#include <utility>

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

// The complete trials of a study, and a model fitted to them.
struct Fitted {
  Space searched;  // parameters with more than one value
  std::vector<UnitPoint> points;
  std::vector<double> values, normalised;
  std::optional<GaussianProcess> model;  // none with fewer than four trials
};

Fitted fit(const Space& space, std::span<const PastTrial> trials) {
  Fitted fitted;
  for (const auto& [name, distribution] : space) {
    if (!is_single(distribution)) fitted.searched.emplace(name, distribution);
  }
  const auto has = [](const PastTrial& trial) {
    return [&trial](const auto& item) { return trial.params.contains(item.first); };
  };
  for (const auto& trial : trials) {
    if (trial.state != TrialState::kComplete || !std::isfinite(trial.value)) continue;
    if (!std::ranges::all_of(fitted.searched, has(trial))) continue;
    fitted.points.push_back(unit_from_params(fitted.searched, trial.params));
    fitted.values.push_back(trial.value);
  }
  if (fitted.values.size() < 4 || fitted.searched.empty()) return fitted;
  std::vector<bool> unordered;
  for (const auto& [name, distribution] : fitted.searched) unordered.push_back(is_unordered(distribution));
  fitted.normalised = normalised_objective(fitted.values);
  fitted.model.emplace(fitted.points, fitted.normalised, unordered,
                       fit_gaussian_process(fitted.points, fitted.normalised, unordered));
  return fitted;
}

// A normalised value in the objective's own unit: along the straight lines between what was seen, and beyond the ends
// along the line through both of them.
double denormalised(const Fitted& fitted, double normalised) {
  std::vector<std::pair<double, double>> seen;
  for (size_t i = 0; i < fitted.values.size(); ++i) seen.emplace_back(fitted.normalised[i], fitted.values[i]);
  std::ranges::sort(seen);
  size_t right = 1;
  while (right + 1 < seen.size() && seen[right].first < normalised) ++right;
  auto [x0, y0] = seen[right - 1];
  auto [x1, y1] = seen[right];
  if (normalised < seen.front().first || normalised > seen.back().first) {
    std::tie(x0, y0) = seen.front();
    std::tie(x1, y1) = seen.back();
  }
  const double anchor_x = normalised > x1 ? x1 : x0, anchor_y = normalised > x1 ? y1 : y0;
  return x1 > x0 ? anchor_y + (normalised - anchor_x) * (y1 - y0) / (x1 - x0) : y0;
}

}  // namespace

std::map<std::string, double> parameter_importance(const Space& space, std::span<const PastTrial> trials) {
  const Fitted fitted = fit(space, trials);
  if (!fitted.model) return {};
  const Space& searched = fitted.searched;
  const GaussianProcess& model = *fitted.model;

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

std::vector<ProfilePoint> parameter_profile(const Space& space, std::span<const PastTrial> trials,
                                            const std::string& name, int64_t count) {
  const Fitted fitted = fit(space, trials);
  const auto found = fitted.searched.find(name);
  if (!fitted.model || found == fitted.searched.end()) return {};
  const auto coordinate = static_cast<size_t>(std::distance(fitted.searched.begin(), found));
  const auto best = std::ranges::min_element(fitted.values) - fitted.values.begin();
  UnitPoint point = fitted.points[static_cast<size_t>(best)];
  const int64_t values = num_values(found->second), steps = values > 0 ? values : count;
  std::vector<ProfilePoint> profile;
  for (int64_t i = 0; i < steps; ++i) {
    const auto share = static_cast<double>(i);
    point[coordinate] =
        values > 0 ? (share + 0.5) / static_cast<double>(steps) : share / static_cast<double>(steps - 1);
    const auto [mean, variance] = fitted.model->posterior(point);
    const double deviation = std::sqrt(std::max(variance, 0.0));
    profile.push_back({.value = external_value(found->second, from_unit(found->second, point[coordinate])),
                       .expected = denormalised(fitted, mean),
                       .low = denormalised(fitted, mean - deviation),
                       .high = denormalised(fitted, mean + deviation)});
  }
  return profile;
}

}  // namespace potstill
