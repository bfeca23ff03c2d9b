#include "potstill/search/gaussian_process.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "potstill/base/check.h"
#include "potstill/search/minimize_in_box.h"

namespace potstill {
namespace {

constexpr double kLeastNoise = 1e-6;  // on standardised values: keeps the Cholesky factor real

struct Matern {
  double value, slope;  // slope: by the squared distance
};
Matern matern52(double squared_distance) {
  const double t = std::sqrt(5.0 * squared_distance), decay = std::exp(-t);
  return {.value = (1 + t + t * t / 3) * decay, .slope = -5.0 / 6.0 * (1 + t) * decay};
}

// y += a · x over contiguous rows: every inner loop here is this one, which the compiler vectorises.
void add_row(double* y, const double* x, double a, size_t count) {
  for (size_t i = 0; i < count; ++i) y[i] += a * x[i];
}

// In place: the upper triangle of a symmetric [n, n] becomes R with RᵀR = it. False when it is not positive.
bool cholesky(std::vector<double>& a, size_t n) {
  for (size_t k = 0; k < n; ++k) {
    double* row = &a[k * n];
    if (!(row[k] > 0)) return false;
    const double inverse = 1 / std::sqrt(row[k]);
    for (size_t j = k; j < n; ++j) row[j] *= inverse;
    for (size_t i = k + 1; i < n; ++i) add_row(&a[i * n + i], row + i, -row[i], n - i);
  }
  return true;
}

// (Rᵀ)⁻¹, lower triangular, row after row.
std::vector<double> inverse_of_transpose(const std::vector<double>& upper, size_t n) {
  std::vector<double> inverse(n * n, 0.0);
  for (size_t i = 0; i < n; ++i) {
    double* row = &inverse[i * n];
    for (size_t k = 0; k < i; ++k) add_row(row, &inverse[k * n], -upper[k * n + i], k + 1);
    row[i] = 1;
    const double scale = 1 / upper[i * n + i];
    for (size_t j = 0; j <= i; ++j) row[j] *= scale;
  }
  return inverse;
}

}  // namespace

GaussianProcess::GaussianProcess(std::vector<UnitPoint> points, std::vector<double> values, std::vector<bool> unordered,
                                 GpHyperparameters hyperparameters)
    : points_(std::move(points)),
      values_(std::move(values)),
      unordered_(std::move(unordered)),
      hyperparameters_(std::move(hyperparameters)),
      n_(points_.size()) {
  POTSTILL_CHECK(n_ > 0 && values_.size() == n_);
  row_.resize(n_);
  slope_.resize(n_);
  white_.resize(n_);
  solved_.resize(n_);
  // Rounding can make nearly equal points' rows dependent: then the least noise that is enough.
  for (double jitter = 0;; jitter = std::max(10 * jitter, kLeastNoise)) {
    upper_.assign(n_ * n_, 0.0);
    for (size_t i = 0; i < n_; ++i) {
      for (size_t j = i; j < n_; ++j) {
        upper_[i * n_ + j] = hyperparameters_.scale * matern52(squared_distance(points_[i], points_[j])).value;
      }
      upper_[i * n_ + i] += hyperparameters_.noise + jitter;
    }
    if (cholesky(upper_, n_)) break;
    POTSTILL_CHECK(jitter < 1);  // a finite kernel plus its own size is positive
  }
  inverse_ = inverse_of_transpose(upper_, n_);
  weights_.assign(n_, 0.0);
  for (size_t i = 0; i < n_; ++i) {
    double white = 0;
    for (size_t j = 0; j <= i; ++j) white += inverse_[i * n_ + j] * values_[j];
    add_row(weights_.data(), &inverse_[i * n_], white, i + 1);
  }
}

double GaussianProcess::squared_distance(std::span<const double> a, std::span<const double> b) const {
  double sum = 0;
  for (size_t d = 0; d < a.size(); ++d) {
    const double difference = a[d] - b[d];
    const double square = unordered_[d] ? (difference == 0 ? 0.0 : 1.0) : difference * difference;
    sum += hyperparameters_.inverse_squared_lengths[d] * square;
  }
  return sum;
}

void GaussianProcess::kernel_row(std::span<const double> point) const {
  for (size_t i = 0; i < n_; ++i) {
    const auto [value, slope] = matern52(squared_distance(point, points_[i]));
    row_[i] = hyperparameters_.scale * value;
    slope_[i] = hyperparameters_.scale * slope;
  }
}

GpPosterior GaussianProcess::posterior(std::span<const double> point) const { return posterior(point, {}, {}); }

GpPosterior GaussianProcess::posterior(std::span<const double> point, std::span<double> mean_gradient,
                                       std::span<double> variance_gradient) const {
  kernel_row(point);
  GpPosterior result{.mean = 0, .variance = hyperparameters_.scale};
  for (size_t i = 0; i < n_; ++i) {
    result.mean += row_[i] * weights_[i];
    double white = 0;
    for (size_t j = 0; j <= i; ++j) white += inverse_[i * n_ + j] * row_[j];
    white_[i] = white;
    result.variance -= white * white;
  }
  result.variance = std::max(result.variance, 0.0);
  if (mean_gradient.empty()) return result;
  std::ranges::fill(solved_, 0.0);
  for (size_t i = 0; i < n_; ++i) add_row(solved_.data(), &inverse_[i * n_], white_[i], i + 1);
  for (size_t d = 0; d < point.size(); ++d) {
    double mean = 0, variance = 0;
    for (size_t i = 0; i < n_ && !unordered_[d]; ++i) {
      const double along = slope_[i] * (point[d] - points_[i][d]);
      mean += along * weights_[i];
      variance += along * solved_[i];
    }
    const double w = hyperparameters_.inverse_squared_lengths[d];
    mean_gradient[d] = 2 * w * mean;
    variance_gradient[d] = -4 * w * variance;
  }
  return result;
}

double GaussianProcess::negative_log_likelihood(std::span<double> gradient) const {
  double sum = 0.5 * static_cast<double>(n_) * std::log(2 * std::numbers::pi);
  for (size_t i = 0; i < n_; ++i) sum += std::log(upper_[i * n_ + i]) + 0.5 * values_[i] * weights_[i];
  if (gradient.empty()) return sum;

  // dNLL/dθ = ½ tr((K⁻¹ - K⁻¹ y yᵀ K⁻¹) dK/dθ); here the upper triangle of the matrix in front, its diagonal halved.
  std::vector<double> front(n_ * n_, 0.0);
  for (size_t k = 0; k < n_; ++k) {
    const double* row = &inverse_[k * n_];
    for (size_t i = 0; i <= k; ++i) add_row(&front[i * n_ + i], row + i, row[i], k + 1 - i);
  }
  std::ranges::fill(gradient, 0.0);
  const size_t dimensions = unordered_.size();
  const auto& lengths = hyperparameters_.inverse_squared_lengths;
  for (size_t i = 0; i < n_; ++i) {
    const double diagonal = 0.5 * (front[i * n_ + i] - weights_[i] * weights_[i]);
    gradient[dimensions] += diagonal * hyperparameters_.scale;
    gradient[dimensions + 1] += diagonal * hyperparameters_.noise;
    for (size_t j = i + 1; j < n_; ++j) {
      const double weight = front[i * n_ + j] - weights_[i] * weights_[j];
      const auto [value, slope] = matern52(squared_distance(points_[i], points_[j]));
      gradient[dimensions] += weight * hyperparameters_.scale * value;
      const double by_distance = weight * hyperparameters_.scale * slope;
      for (size_t d = 0; d < dimensions; ++d) {
        const double difference = points_[i][d] - points_[j][d];
        const double square = unordered_[d] ? (difference == 0 ? 0.0 : 1.0) : difference * difference;
        gradient[d] += by_distance * lengths[d] * square;
      }
    }
  }
  return sum;
}

GpHyperparameters fit_gaussian_process(const std::vector<UnitPoint>& points, const std::vector<double>& values,
                                       const std::vector<bool>& unordered) {
  const size_t dimensions = unordered.size();
  const auto from_logs = [&](std::span<const double> logs) {
    GpHyperparameters h;
    for (size_t d = 0; d < dimensions; ++d) h.inverse_squared_lengths.push_back(std::exp(logs[d]));
    h.scale = std::exp(logs[dimensions]);
    h.noise = std::exp(logs[dimensions + 1]) + kLeastNoise;
    return h;
  };
  const double middle = -2 * std::log(0.2 * std::sqrt(static_cast<double>(dimensions)));  // of log w
  constexpr double kSpread = 1.2;                                                         // of log w
  const SmoothFunction objective = [&](std::span<const double> logs, std::span<double> gradient) {
    const auto h = from_logs(logs);
    double value = GaussianProcess(points, values, unordered, h).negative_log_likelihood(gradient);
    for (size_t d = 0; d < dimensions; ++d) {
      const double z = (logs[d] - middle) / kSpread;
      value += 0.5 * z * z;
      gradient[d] += z / kSpread;
    }
    value += h.scale - std::log(h.scale);  // Γ(2, 1)
    gradient[dimensions] += h.scale - 1;
    value += 100 * h.noise - 0.1 * std::log(h.noise);  // Γ(1.1, 100)
    gradient[dimensions + 1] += 100 * h.noise - 0.1;
    gradient[dimensions + 1] *= (h.noise - kLeastNoise) / h.noise;  // by the log of what exceeds the least
    return value;
  };
  std::vector<double> start(dimensions, middle), low(dimensions, -9.0), high(dimensions, 9.0);
  start.insert(start.end(), {0.0, std::log(1e-3)});
  low.insert(low.end(), {-7.0, std::log(1e-8)});
  high.insert(high.end(), {5.0, 0.0});
  // 100 points and 7 parameters: about 0.4 ms an evaluation.
  const auto fitted = minimize_in_box(objective, start, low, high, points.size() > 60 ? 16 : 40);
  return from_logs(fitted.x);
}

}  // namespace potstill
