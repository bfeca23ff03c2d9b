#include "potstill/search/parzen.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include "potstill/base/check.h"
#include "potstill/search/truncated_normal.h"

namespace potstill {
namespace {

constexpr double kPriorWeight = 1.0;

size_t draw_index(std::span<const double> probabilities, double u) {
  double sum = 0.0;
  for (size_t i = 0; i + 1 < probabilities.size(); ++i) {
    sum += probabilities[i];
    if (u < sum) return i;
  }
  return probabilities.size() - 1;
}

// Distance to the farther neighbour; the outermost observations look inwards only, once there are two. The bounds are
// the neighbours of a single one.
std::vector<double> neighbour_widths(std::span<const double> mus, double low, double high) {
  std::vector<size_t> order(mus.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, {}, [&](size_t i) { return mus[i]; });
  std::vector<double> widths(mus.size());
  const size_t last = mus.size() - 1;
  for (size_t i = 0; i < mus.size(); ++i) {
    const double here = mus[order[i]];
    const double left = here - (i == 0 ? low : mus[order[i - 1]]);
    const double right = (i == last ? high : mus[order[i + 1]]) - here;
    double width = std::max(left, right);
    if (mus.size() >= 2 && i == 0) width = right;
    if (mus.size() >= 2 && i == last) width = left;
    widths[order[i]] = width;
  }
  return widths;
}

}  // namespace

std::vector<double> observation_weights(int64_t m) {
  constexpr int64_t kFull = 25;
  std::vector<double> weights(static_cast<size_t>(m), 1.0);
  const int64_t ramp = m - kFull;
  const double first = 1.0 / static_cast<double>(m);
  for (int64_t i = 0; i < ramp; ++i) {  // evenly from 1/m to 1, both included
    const double t = ramp == 1 ? 0.0 : static_cast<double>(i) / static_cast<double>(ramp - 1);
    weights[static_cast<size_t>(i)] = first + t * (1.0 - first);
  }
  return weights;
}

ParzenEstimator::ParzenEstimator(const Space& space, std::span<const Params> observations)
    : weights_(observation_weights(static_cast<int64_t>(observations.size()))) {
  weights_.push_back(kPriorWeight);
  const double sum = std::accumulate(weights_.begin(), weights_.end(), 0.0);
  for (auto& weight : weights_) weight /= sum;
  for (const auto& [name, distribution] : space) {
    const auto range = numeric_range(distribution);
    parameters_.push_back(
        range
            ? numeric_kernels(name, *range, observations)
            : categorical_kernels(name, std::get<CategoricalDistribution>(distribution).choices.size(), observations));
  }
}

ParzenEstimator::Kernels ParzenEstimator::numeric_kernels(const std::string& name, const NumericRange& range,
                                                          std::span<const Params> observations) {
  Kernels kernels;
  kernels.name = name;
  kernels.low = range.low;
  kernels.high = range.high;
  kernels.step = range.step;
  kernels.log = range.log;
  kernels.lower = range.low - range.step / 2;
  kernels.upper = range.high + range.step / 2;
  for (const auto& params : observations) kernels.mus.push_back(params.at(name));
  if (range.log) {
    kernels.lower = std::log(kernels.lower);
    kernels.upper = std::log(kernels.upper);
    for (auto& mu : kernels.mus) mu = std::log(mu);
  }
  const double length = kernels.upper - kernels.lower;
  const auto m = static_cast<double>(observations.size());
  if (!observations.empty()) kernels.sigmas = neighbour_widths(kernels.mus, kernels.lower, kernels.upper);
  // "Magic clip": few observations keep their kernels wide.
  for (auto& sigma : kernels.sigmas) sigma = std::clamp(sigma, length / std::min(100.0, 2.0 + m), length);
  kernels.mus.push_back(0.5 * (kernels.lower + kernels.upper));
  kernels.sigmas.push_back(length);
  for (size_t k = 0; k < kernels.mus.size(); ++k) {
    kernels.log_mass.push_back(log_gauss_mass((kernels.lower - kernels.mus[k]) / kernels.sigmas[k],
                                              (kernels.upper - kernels.mus[k]) / kernels.sigmas[k]));
  }
  return kernels;
}

ParzenEstimator::Kernels ParzenEstimator::categorical_kernels(const std::string& name, size_t num_choices,
                                                              std::span<const Params> observations) {
  Kernels kernels;
  kernels.name = name;
  const size_t count = observations.size() + 1;
  kernels.table.assign(count, std::vector<double>(num_choices, kPriorWeight / static_cast<double>(count)));
  for (size_t k = 0; k < observations.size(); ++k) {
    kernels.table[k].at(static_cast<size_t>(observations[k].at(name))) += 1.0;
  }
  for (auto& row : kernels.table) {
    const double sum = std::accumulate(row.begin(), row.end(), 0.0);
    for (auto& p : row) p /= sum;
  }
  return kernels;
}

Params ParzenEstimator::sample(Rng& rng) const {
  const size_t k = draw_index(weights_, rng.uniform());
  Params point;
  for (const auto& kernels : parameters_) {
    if (!kernels.table.empty()) {
      point[kernels.name] = static_cast<double>(draw_index(kernels.table[k], rng.uniform()));
      continue;
    }
    const double mu = kernels.mus[k], sigma = kernels.sigmas[k];
    double x = mu + sigma * truncated_normal_quantile(rng.uniform(), (kernels.lower - mu) / sigma,
                                                      (kernels.upper - mu) / sigma);
    if (kernels.log) x = std::exp(x);
    if (kernels.step > 0.0) x = kernels.low + std::round((x - kernels.low) / kernels.step) * kernels.step;
    point[kernels.name] = std::clamp(x, kernels.low, kernels.high);
  }
  return point;
}

// One kernel: a truncated normal's density, or its mass over the cell of a stepped value; a row of the table.
double ParzenEstimator::log_kernel(const Kernels& kernels, size_t k, double x) {
  if (!kernels.table.empty()) return std::log(kernels.table[k].at(static_cast<size_t>(x)));
  const double mu = kernels.mus[k], sigma = kernels.sigmas[k];
  const auto position = [&](double value) { return ((kernels.log ? std::log(value) : value) - mu) / sigma; };
  if (kernels.step > 0.0) {
    return log_gauss_mass(position(x - kernels.step / 2), position(x + kernels.step / 2)) - kernels.log_mass[k];
  }
  const double z = position(x);
  return -0.5 * z * z - 0.5 * std::log(2.0 * std::numbers::pi) - kernels.log_mass[k] - std::log(sigma);
}

double ParzenEstimator::log_pdf(const Params& point) const {
  std::vector<double> terms(weights_.size());
  for (size_t k = 0; k < weights_.size(); ++k) {
    terms[k] = std::log(weights_[k]);
    for (const auto& kernels : parameters_) terms[k] += log_kernel(kernels, k, point.at(kernels.name));
  }
  const double high = *std::ranges::max_element(terms);
  if (std::isinf(high)) return high;
  double sum = 0.0;
  for (const double term : terms) sum += std::exp(term - high);
  return high + std::log(sum);
}

std::vector<double> ParzenEstimator::widths(const std::string& parameter) const {
  for (const auto& kernels : parameters_) {
    if (kernels.name == parameter) return kernels.sigmas;
  }
  POTSTILL_CHECK(!"no such parameter");
  return {};
}

}  // namespace potstill
