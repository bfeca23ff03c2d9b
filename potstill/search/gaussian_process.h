// A Gaussian process over the unit cube: the model of an objective that has been seen at a few points.
//   k(x, x') = scale · m(Σ_d w_d (x_d - x'_d)²),  m(s²) = (1 + t + t²/3) exp(-t),  t = √5 s       Matérn 5/2
// w_d = 1 / lengthscale²; an unordered coordinate counts as 0 or 1: equal or not.
//   Rasmussen and Williams, Gaussian Processes for Machine Learning, chapters 2 and 4.2
#pragma once

#include <span>
#include <vector>

#include "potstill/search/unit_cube.h"

namespace potstill {

struct GpHyperparameters {
  std::vector<double> inverse_squared_lengths;  // [D]
  double scale = 1, noise = 1e-3;               // variances, of the objective and of what scatters it
};

struct GpPosterior {
  double mean = 0, variance = 0;  // of the objective itself, without noise
};

class GaussianProcess {
 public:
  // points [n][D]; values [n] with mean 0 and variance about 1; unordered [D].
  GaussianProcess(std::vector<UnitPoint> points, std::vector<double> values, std::vector<bool> unordered,
                  GpHyperparameters hyperparameters);

  GpPosterior posterior(std::span<const double> point) const;
  // The same, with the derivatives along every ordered coordinate (0 along the others).
  GpPosterior posterior(std::span<const double> point, std::span<double> mean_gradient,
                        std::span<double> variance_gradient) const;

  // -log p(values | points): what fitting makes small. gradient [D + 2]: by log w, log scale, log noise.
  double negative_log_likelihood(std::span<double> gradient = {}) const;

  const GpHyperparameters& hyperparameters() const { return hyperparameters_; }
  std::span<const UnitPoint> points() const { return points_; }
  std::span<const double> values() const { return values_; }

 private:
  double squared_distance(std::span<const double> a, std::span<const double> b) const;
  void kernel_row(std::span<const double> point) const;  // fills row_, slope_

  std::vector<UnitPoint> points_;
  std::vector<double> values_;
  std::vector<bool> unordered_;
  GpHyperparameters hyperparameters_;
  size_t n_ = 0;
  std::vector<double> upper_;                                 // [n, n]: K + noise · I = upper_ᵀ upper_
  std::vector<double> inverse_;                               // [n, n]: (upper_ᵀ)⁻¹, lower triangular
  std::vector<double> weights_;                               // [n]: (K + noise · I)⁻¹ values
  mutable std::vector<double> row_, slope_, white_, solved_;  // [n] each: room for posterior()
};

// The most plausible hyperparameters, by likelihood times priors: length scales log-normal around 0.2 · sqrt(D) (they
// grow with the dimension: arXiv:2402.02229), scale Γ(2, 1), noise Γ(1.1, 100). The numbers are those that did best at
// 16 trials on the functions of bench/search: longer prior scales trust too early what a few points say.
GpHyperparameters fit_gaussian_process(const std::vector<UnitPoint>& points, const std::vector<double>& values,
                                       const std::vector<bool>& unordered);

}  // namespace potstill
