#include "potstill/search/minimize_in_box.h"

#include <algorithm>
#include <cmath>
#include <deque>

namespace potstill {
namespace {

constexpr size_t kMemory = 6;
constexpr double kArmijo = 1e-4, kTolerance = 1e-6;

double dot(std::span<const double> a, std::span<const double> b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

struct Pair {  // a step and the change of the gradient over it
  std::vector<double> s, y;
  double inverse_curvature;
};

// -H·g by the two-loop recursion.                                      Nocedal and Wright, algorithm 7.4
std::vector<double> descent(const std::deque<Pair>& pairs, std::vector<double> g) {
  std::vector<double> weights;
  for (auto pair = pairs.rbegin(); pair != pairs.rend(); ++pair) {
    weights.push_back(pair->inverse_curvature * dot(pair->s, g));
    for (size_t i = 0; i < g.size(); ++i) g[i] -= weights.back() * pair->y[i];
  }
  if (!pairs.empty()) {
    const Pair& last = pairs.back();
    const double scale = 1.0 / (last.inverse_curvature * dot(last.y, last.y));
    for (double& value : g) value *= scale;
  }
  for (const Pair& pair : pairs) {
    const double weight = weights.back() - pair.inverse_curvature * dot(pair.y, g);
    weights.pop_back();
    for (size_t i = 0; i < g.size(); ++i) g[i] += weight * pair.s[i];
  }
  for (double& value : g) value = -value;
  return g;
}

}  // namespace

BoxMinimum minimize_in_box(const SmoothFunction& f, std::vector<double> start, std::span<const double> low,
                           std::span<const double> high, int max_evaluations) {
  const size_t n = start.size();
  std::vector<double> x = std::move(start), gradient(n), trial(n), trial_gradient(n);
  for (size_t i = 0; i < n; ++i) x[i] = std::clamp(x[i], low[i], high[i]);
  double value = f(x, gradient);
  std::deque<Pair> pairs;
  int evaluations = 1;
  while (evaluations < max_evaluations && std::isfinite(value)) {
    // A variable at a bound that its gradient pushes against stays there.
    std::vector<double> free_gradient = gradient;
    for (size_t i = 0; i < n; ++i) {
      if ((x[i] <= low[i] && gradient[i] > 0) || (x[i] >= high[i] && gradient[i] < 0)) free_gradient[i] = 0;
    }
    const double size = std::sqrt(dot(free_gradient, free_gradient));
    if (size < kTolerance) break;
    std::vector<double> direction = descent(pairs, free_gradient);
    for (size_t i = 0; i < n; ++i) direction[i] = free_gradient[i] == 0 ? 0 : direction[i];
    if (dot(direction, free_gradient) >= -1e-12 * size * size) {
      pairs.clear();
      direction = descent(pairs, free_gradient);
    }
    double step = pairs.empty() ? std::min(1.0, 0.3 / size) : 1.0;
    bool moved = false;
    double trial_value = value;
    for (; evaluations < max_evaluations && step > 1e-8; step *= 0.4) {
      for (size_t i = 0; i < n; ++i) trial[i] = std::clamp(x[i] + step * direction[i], low[i], high[i]);
      trial_value = f(trial, trial_gradient);
      ++evaluations;
      double expected = 0;
      for (size_t i = 0; i < n; ++i) expected += free_gradient[i] * (trial[i] - x[i]);
      if (std::isfinite(trial_value) && trial_value <= value + kArmijo * expected) {
        moved = true;
        break;
      }
    }
    if (!moved) {
      if (pairs.empty()) break;
      pairs.clear();  // the model of the curvature misled: once more along the gradient
      continue;
    }
    Pair pair{.s = std::vector<double>(n), .y = std::vector<double>(n), .inverse_curvature = 0};
    for (size_t i = 0; i < n; ++i) {
      pair.s[i] = trial[i] - x[i];
      pair.y[i] = trial_gradient[i] - gradient[i];
    }
    const double curvature = dot(pair.s, pair.y);
    const bool settled = value - trial_value < 1e-9 * std::max(1.0, std::abs(value));
    x = trial;
    gradient = trial_gradient;
    value = trial_value;
    if (curvature > 1e-10 * dot(pair.y, pair.y)) {
      pair.inverse_curvature = 1.0 / curvature;
      pairs.push_back(std::move(pair));
      if (pairs.size() > kMemory) pairs.pop_front();
    }
    if (settled) break;
  }
  return {.x = std::move(x), .value = value};
}

}  // namespace potstill
