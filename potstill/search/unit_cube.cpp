#include "potstill/search/unit_cube.h"

#include <algorithm>
#include <cmath>

namespace potstill {
namespace {

// Bounds of the range that a coordinate spans: widened by half a step, in log space when log. An integer has step 1.
struct Span {
  double low, high;
};
Span widened(const NumericRange& range) {
  const Span span{range.low - range.step / 2, range.high + range.step / 2};
  return range.log ? Span{std::log(span.low), std::log(span.high)} : span;
}

}  // namespace

double from_unit(const Distribution& distribution, double u) {
  const auto range = numeric_range(distribution);
  if (!range) {
    const auto count = static_cast<double>(std::get<CategoricalDistribution>(distribution).choices.size());
    return std::min(std::floor(u * count), count - 1);
  }
  const Span span = widened(*range);
  double x = span.low + u * (span.high - span.low);
  if (range->log) x = std::exp(x);
  if (range->step > 0.0) x = range->low + std::round((x - range->low) / range->step) * range->step;
  return std::clamp(x, range->low, range->high);
}

double to_unit(const Distribution& distribution, double internal) {
  const auto range = numeric_range(distribution);
  if (!range) {
    const auto count = static_cast<double>(std::get<CategoricalDistribution>(distribution).choices.size());
    return (internal + 0.5) / count;
  }
  const Span span = widened(*range);
  if (span.high <= span.low) return 0.5;
  const double x = range->log ? std::log(internal) : internal;
  return std::clamp((x - span.low) / (span.high - span.low), 0.0, 1.0);
}

Params params_from_unit(const Space& space, const UnitPoint& point) {
  Params params;
  size_t d = 0;
  for (const auto& [name, distribution] : space) params[name] = from_unit(distribution, point[d++]);
  return params;
}

UnitPoint unit_from_params(const Space& space, const Params& params) {
  UnitPoint point;
  for (const auto& [name, distribution] : space) point.push_back(to_unit(distribution, params.at(name)));
  return point;
}

bool is_unordered(const Distribution& distribution) {
  const auto* categorical = std::get_if<CategoricalDistribution>(&distribution);
  if (categorical == nullptr) return false;
  const auto& choices = categorical->choices;
  if (choices.size() <= 2) return false;  // two values are as far apart either way
  if (!std::ranges::all_of(choices, [](const auto& choice) { return choice.is_number(); })) return true;
  std::vector<double> values;
  for (const auto& choice : choices) values.push_back(choice.template get<double>());
  return !std::ranges::is_sorted(values) && !std::ranges::is_sorted(values, std::greater<>());
}

int64_t num_values(const Distribution& distribution) {
  const auto range = numeric_range(distribution);
  if (!range) return static_cast<int64_t>(std::get<CategoricalDistribution>(distribution).choices.size());
  return range->step == 0.0 ? 0 : std::llround((range->high - range->low) / range->step) + 1;
}

}  // namespace potstill
