#include "potstill/search/gp_sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include "potstill/search/gaussian_process.h"
#include "potstill/search/minimize_in_box.h"
#include "potstill/search/sobol.h"

namespace potstill {
namespace {

constexpr size_t kCandidates = 512;  // scrambled Sobol points over the whole cube
constexpr size_t kNear = 96;         // points around the best one
constexpr size_t kStarts = 4;        // of the local searches
constexpr double kSamePoint = 1e-6;  // coordinates closer than this are one point

double normal_density(double z) { return std::exp(-0.5 * z * z) / std::sqrt(2 * std::numbers::pi); }

struct Observations {
  std::vector<UnitPoint> points, running;
  std::vector<double> values;
};

Observations observe(const Space& space, std::span<const PastTrial> trials) {
  Observations seen;
  std::vector<UnitPoint> failed;
  std::vector<std::pair<UnitPoint, double>> pruned;
  for (const auto& trial : trials) {
    if (trial.params.size() < space.size()) continue;
    const auto point = [&] { return unit_from_params(space, trial.params); };
    if (trial.state == TrialState::kRunning) seen.running.push_back(point());
    if (trial.state == TrialState::kFail) failed.push_back(point());
    if (trial.state == TrialState::kPruned && !trial.intermediate.empty()) {
      pruned.emplace_back(point(), trial.intermediate.rbegin()->second);
    }
    if (trial.state != TrialState::kComplete || std::isnan(trial.value)) continue;
    if (std::isinf(trial.value)) {
      failed.push_back(point());
      continue;
    }
    seen.points.push_back(point());
    seen.values.push_back(trial.value);
  }
  if (seen.values.empty()) return seen;
  const double worst = std::ranges::max(seen.values);
  std::vector<double> sorted = seen.values;
  std::ranges::sort(sorted);
  const double median = sorted[sorted.size() / 2];
  for (auto& [point, value] : pruned) {
    seen.points.push_back(std::move(point));
    seen.values.push_back(std::isfinite(value) ? std::clamp(value, median, std::max(median, worst)) : worst);
  }
  for (auto& point : failed) {
    seen.points.push_back(std::move(point));
    seen.values.push_back(worst);
  }
  return seen;
}

bool same_point(const UnitPoint& a, const UnitPoint& b) {
  for (size_t d = 0; d < a.size(); ++d) {
    if (std::abs(a[d] - b[d]) > kSamePoint) return false;
  }
  return true;
}

// The search for the point of most expected improvement, over one fitted model.
class Acquisition {
 public:
  Acquisition(const Space& space, const GaussianProcess& model) : model_(model) {
    for (const auto& [name, distribution] : space) distributions_.push_back(&distribution);
    best_ = std::numeric_limits<double>::infinity();
    for (const auto& point : model.points()) {
      const double mean = model.posterior(point).mean;
      if (mean < best_) {
        best_ = mean;
        best_point_ = point;
      }
    }
  }

  UnitPoint maximise(Rng& rng) const {
    std::vector<std::pair<double, UnitPoint>> ranked;
    for (auto& point : scrambled_sobol_points(distributions_.size(), kCandidates, rng)) consider(point, ranked);
    for (size_t i = 0; i < kNear; ++i) consider(near_best(rng), ranked);
    std::ranges::stable_sort(ranked, std::ranges::greater(), &std::pair<double, UnitPoint>::first);
    std::vector<std::pair<double, UnitPoint>> found;
    for (const auto& [value, point] : ranked) {
      if (found.size() == kStarts) break;
      const bool crowded = std::ranges::any_of(found, [&start = point](const auto& other) {
        double squares = 0;
        for (size_t d = 0; d < start.size(); ++d) squares += std::pow(start[d] - other.second[d], 2);
        return squares < 1e-3;
      });
      if (!crowded) found.push_back(climb(value, point));
    }
    found.insert(found.end(), ranked.begin(), ranked.end());  // for the case that every climb ends at a known point
    std::ranges::stable_sort(found, std::ranges::greater(), &std::pair<double, UnitPoint>::first);
    for (const auto& [value, point] : found) {
      const auto is_it = [&candidate = point](const UnitPoint& known) { return same_point(known, candidate); };
      if (std::ranges::none_of(model_.points(), is_it)) return point;
    }
    return found.front().second;  // a finite space, all of it seen
  }

 private:
  double value(const UnitPoint& point) const {
    const auto [mean, variance] = model_.posterior(point);
    const double deviation = std::sqrt(variance + 1e-12);
    return std::log(deviation) + log_expected_improvement((best_ - mean) / deviation);
  }

  // Steps and choices at the middle of their share, where the model was told of them.
  UnitPoint snapped(UnitPoint point) const {
    for (size_t d = 0; d < point.size(); ++d) {
      if (num_values(*distributions_[d]) > 0)
        point[d] = to_unit(*distributions_[d], from_unit(*distributions_[d], point[d]));
    }
    return point;
  }

  void consider(const UnitPoint& point, std::vector<std::pair<double, UnitPoint>>& ranked) const {
    auto candidate = snapped(point);
    const double at = value(candidate);
    ranked.emplace_back(at, std::move(candidate));
  }

  UnitPoint near_best(Rng& rng) const {
    UnitPoint point = best_point_;
    const double reach = 0.3 * std::pow(10.0, -2.0 * rng.uniform());
    for (size_t d = 0; d < point.size(); ++d) {
      const bool moves = rng.uniform() < 0.6;
      const double to = is_unordered(*distributions_[d]) ? rng.uniform() : point[d] + reach * rng.normal();
      if (moves) point[d] = std::clamp(to, 0.0, 1.0);
    }
    return point;
  }

  // Continuous coordinates by their gradient, the others one after the other by trying their values.
  std::pair<double, UnitPoint> climb(double at, UnitPoint point) const {
    for (int round = 0; round < 2; ++round) {
      const double before = at;
      climb_continuous(at, point);
      for (size_t d = 0; d < point.size(); ++d) try_values(d, at, point);
      if (at - before < 1e-4) break;
    }
    return {at, point};
  }

  void climb_continuous(double& at, UnitPoint& point) const {
    std::vector<size_t> free;
    for (size_t d = 0; d < point.size(); ++d) {
      if (num_values(*distributions_[d]) == 0) free.push_back(d);
    }
    if (free.empty()) return;
    std::vector<double> mean_gradient(point.size()), variance_gradient(point.size());
    UnitPoint probe = point;
    const SmoothFunction loss = [&](std::span<const double> x, std::span<double> gradient) {
      for (size_t i = 0; i < free.size(); ++i) probe[free[i]] = x[i];
      const auto [mean, variance] = model_.posterior(probe, mean_gradient, variance_gradient);
      const double deviation = std::sqrt(variance + 1e-12), z = (best_ - mean) / deviation;
      double slope = 0;
      const double log_ei = std::log(deviation) + log_expected_improvement(z, &slope);
      for (size_t i = 0; i < free.size(); ++i) {
        const double by_deviation = variance_gradient[free[i]] / (2 * deviation);
        gradient[i] = -(by_deviation * (1 - slope * z) - slope * mean_gradient[free[i]]) / deviation;
      }
      return -log_ei;
    };
    std::vector<double> start, low(free.size(), 0.0), high(free.size(), 1.0);
    for (const size_t d : free) start.push_back(point[d]);
    const auto result = minimize_in_box(loss, start, low, high, 40);
    if (-result.value <= at) return;
    at = -result.value;
    for (size_t i = 0; i < free.size(); ++i) point[free[i]] = result.x[i];
  }

  void try_values(size_t d, double& at, UnitPoint& point) const {
    const int64_t count = num_values(*distributions_[d]);
    if (count <= 1) return;
    const auto set = [&](double to) {
      UnitPoint trial = point;
      trial[d] = to;
      trial = snapped(std::move(trial));
      const double there = value(trial);
      if (there > at) {
        at = there;
        point = std::move(trial);
      }
    };
    if (count <= 16) {
      for (int64_t i = 0; i < count; ++i) set((static_cast<double>(i) + 0.5) / static_cast<double>(count));
      return;
    }
    for (const double step : {0.3, 0.1, 0.03, 1.0 / static_cast<double>(count)}) {
      set(std::min(1.0, point[d] + step));
      set(std::max(0.0, point[d] - step));
    }
  }

  const GaussianProcess& model_;
  std::vector<const Distribution*> distributions_;
  double best_;
  UnitPoint best_point_;
};

}  // namespace

std::vector<double> normalised_objective(const std::vector<double>& values) {
  const auto n = static_cast<double>(values.size());
  const auto standardise = [&](std::vector<double> v) {
    const double mean = std::accumulate(v.begin(), v.end(), 0.0) / n;
    double squares = 0;
    for (double& x : v) {
      x -= mean;
      squares += x * x;
    }
    const double deviation = std::sqrt(squares / n);
    for (double& x : v) x = deviation > 0 ? x / deviation : 0;
    return v;
  };
  const auto base = standardise(values);
  const auto warp = [](double x, double lambda) {
    if (x >= 0) return lambda == 0 ? std::log1p(x) : (std::pow(x + 1, lambda) - 1) / lambda;
    return lambda == 2 ? -std::log1p(-x) : -(std::pow(1 - x, 2 - lambda) - 1) / (2 - lambda);
  };
  double best_likelihood = -std::numeric_limits<double>::infinity();
  std::vector<double> best = base;
  for (double lambda = 1.0; lambda >= -1.0; lambda -= 0.25) {
    std::vector<double> warped;
    double jacobian = 0;
    for (const double x : base) {
      warped.push_back(warp(x, lambda));
      jacobian += (lambda - 1) * (x >= 0 ? std::log1p(x) : -std::log1p(-x));
    }
    const double mean = std::accumulate(warped.begin(), warped.end(), 0.0) / n;
    double variance = 0;
    for (const double x : warped) variance += (x - mean) * (x - mean) / n;
    if (!(variance > 0)) break;
    const double likelihood = -0.5 * n * std::log(variance) + jacobian;
    if (likelihood <= best_likelihood) continue;
    best_likelihood = likelihood;
    best = standardise(warped);
  }
  return best;
}

double log_expected_improvement(double z, double* slope) {
  // h(z) = φ(z) + z Φ(z), h' = Φ. Far left both vanish: there by the continued fraction of Mills' ratio
  // m = Φ(z) / φ(z), with h = φ (1 + z m).
  if (z > -6) {
    const double cumulative = 0.5 * std::erfc(-z / std::numbers::sqrt2);
    const double h = normal_density(z) + z * cumulative;
    if (slope) *slope = cumulative / h;
    return std::log(h);
  }
  const double x = -z;
  double denominator = x;
  for (int k = 60; k >= 1; --k) denominator = x + k / denominator;  // m = 1 / (x + 1 / (x + 2 / (x + …)))
  double tail = x;
  for (int k = 60; k >= 2; --k) tail = x + k / tail;
  const double ratio = 1 / denominator;  // m
  const double rest = ratio / tail;      // 1 - x m = m / (x + 2 / (x + 3 / …)), without its cancellation
  if (slope) *slope = ratio / rest;
  return -0.5 * z * z - 0.5 * std::log(2 * std::numbers::pi) + std::log(rest);
}

Params GpSampler::sample(const Space& space, std::span<const PastTrial> trials, int64_t number, Rng& rng) const {
  Space searched;
  for (const auto& [name, distribution] : space) {
    if (!is_single(distribution)) searched.emplace(name, distribution);
  }
  Params point = sample_uniformly(space, rng);  // what the model does not choose: parameters with a single value
  if (searched.empty()) return point;
  const auto choose = [&](const UnitPoint& unit) {
    for (const auto& [name, value] : params_from_unit(searched, unit)) point[name] = value;
    return point;
  };
  if (number < options_.n_startup_trials) {
    Rng start(options_.seed, "search/start");
    const auto design = scrambled_sobol_points(searched.size(), static_cast<size_t>(options_.n_startup_trials), start);
    return choose(design[static_cast<size_t>(number)]);
  }
  auto seen = observe(searched, trials);
  if (seen.points.size() < 2) return point;

  std::vector<bool> unordered;
  for (const auto& [name, distribution] : searched) unordered.push_back(is_unordered(distribution));
  auto values = normalised_objective(seen.values);
  const auto hyperparameters = fit_gaussian_process(seen.points, values, unordered);
  GaussianProcess model(seen.points, values, unordered, hyperparameters);
  if (!seen.running.empty()) {
    for (auto& running : seen.running) {
      values.push_back(model.posterior(running).mean);
      seen.points.push_back(std::move(running));
    }
    model = GaussianProcess(seen.points, values, unordered, hyperparameters);
  }
  return choose(Acquisition(searched, model).maximise(rng));
}

}  // namespace potstill
