#include "potstill/eval/paired_statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "potstill/base/check.h"
#include "potstill/base/rng.h"

namespace potstill {
namespace {

// log softmax.
std::vector<double> normalised(std::span<const double> scores) {
  const double top = *std::ranges::max_element(scores);
  double sum = 0.0;
  for (const double score : scores) sum += std::exp(score - top);
  std::vector<double> out;
  for (const double score : scores) out.push_back(score - top - std::log(sum));
  return out;
}

double quantile(const std::vector<double>& sorted, double q) {
  const double at = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

}  // namespace

std::vector<double> bootstrap_means(std::span<const double> values, int64_t resamples, uint64_t seed) {
  POTSTILL_CHECK(!values.empty());
  Rng rng(seed, "bootstrap");
  std::vector<double> means;
  for (int64_t r = 0; r < resamples; ++r) {
    double sum = 0.0;
    for (size_t i = 0; i < values.size(); ++i) sum += values[rng.below(values.size())];
    means.push_back(sum / static_cast<double>(values.size()));
  }
  return means;
}

Interval percentile_interval(std::vector<double> values, double coverage) {
  POTSTILL_CHECK(!values.empty());
  std::ranges::sort(values);
  return {quantile(values, (1.0 - coverage) / 2.0), quantile(values, (1.0 + coverage) / 2.0)};
}

double mcnemar_exact(int64_t only_first, int64_t only_second) {
  const int64_t n = only_first + only_second, fewer = std::min(only_first, only_second);
  // Twice the lower tail of Binomial(n, 1/2), each term through its logarithm: 2⁻ⁿ itself underflows beyond n = 1074.
  double tail = 0.0;
  for (int64_t k = 0; k <= fewer; ++k) {
    const auto count = static_cast<double>(n), chosen = static_cast<double>(k);
    tail += std::exp(std::lgamma(count + 1) - std::lgamma(chosen + 1) - std::lgamma(count - chosen + 1) -
                     count * std::log(2.0));
  }
  return std::min(1.0, 2.0 * tail);
}

std::vector<double> holm(std::span<const double> p_values) {
  std::vector<size_t> order(p_values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, [&](size_t a, size_t b) { return p_values[a] < p_values[b]; });
  std::vector<double> adjusted(p_values.size());
  double largest = 0.0;
  for (size_t rank = 0; rank < order.size(); ++rank) {
    largest = std::max(largest, static_cast<double>(order.size() - rank) * p_values[order[rank]]);
    adjusted[order[rank]] = std::min(1.0, largest);
  }
  return adjusted;
}

double choice_kl(std::span<const double> first, std::span<const double> second) {
  POTSTILL_CHECK(first.size() == second.size() && !first.empty());
  const auto p = normalised(first), q = normalised(second);
  double kl = 0.0;
  for (size_t i = 0; i < p.size(); ++i) kl += std::exp(p[i]) * (p[i] - q[i]);
  return std::max(kl, 0.0);  // rounding can leave -1e-17
}

}  // namespace potstill
