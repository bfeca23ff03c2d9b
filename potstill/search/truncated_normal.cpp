#include "potstill/search/truncated_normal.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace potstill {
namespace {

const double kHalfLogTwoPi = 0.5 * std::log(2.0 * std::numbers::pi);

double ndtr(double x) { return 0.5 * std::erfc(-x / std::numbers::sqrt2); }

// log(exp(p) - exp(q)), p >= q
double log_diff(double p, double q) { return p + std::log1p(-std::exp(q - p)); }

double log_sum(double p, double q) {
  const double high = std::max(p, q);
  return std::isinf(high) ? high : high + std::log1p(std::exp(std::min(p, q) - high));
}

}  // namespace

double log_ndtr(double x) {
  if (x > 0.0) return std::log1p(-ndtr(-x));
  if (x > -37.0) return std::log(ndtr(x));  // erfc leaves the normal doubles near -37.5
  // Abramowitz and Stegun 26.2.12; past 37 the first term left out is below 1e-13.
  const double y = 1.0 / (x * x);
  return -0.5 * x * x - std::log(-x) - kHalfLogTwoPi + std::log1p(y * (-1.0 + y * (3.0 + y * (-15.0 + y * 105.0))));
}

double log_gauss_mass(double a, double b) {
  if (a > 0.0) return log_gauss_mass(-b, -a);  // Φ loses its digits near 1: by symmetry always from the left
  if (b <= 0.0) return log_diff(log_ndtr(b), log_ndtr(a));
  return std::log1p(-ndtr(a) - ndtr(-b));
}

double truncated_normal_quantile(double quantile, double a, double b) {
  if (quantile <= 0.0) return a;
  if (quantile >= 1.0) return b;
  if (a >= 0.0) return -truncated_normal_quantile(1.0 - quantile, -b, -a);
  const double target = log_sum(log_ndtr(a), std::log(quantile) + log_gauss_mass(a, b));
  // log Φ is increasing and concave: Newton inside a bracket that shrinks, by halves where a step would leave it.
  double low = a, high = b, x = std::clamp(0.0, a, b);
  for (int i = 0; i < 200; ++i) {
    const double log_cdf = log_ndtr(x);
    const double difference = log_cdf - target;
    (difference > 0.0 ? high : low) = x;
    const double log_slope = -0.5 * x * x - kHalfLogTwoPi - log_cdf;
    double next = x - difference * std::exp(-log_slope);
    if (!(next > low && next < high)) next = 0.5 * (low + high);
    if (std::abs(next - x) <= 1e-14 * std::max(1.0, std::abs(x))) return next;
    x = next;
  }
  return x;
}

}  // namespace potstill
