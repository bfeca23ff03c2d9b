// ParzenEstimator: a density over a space out of past trials: a mixture with one product of kernels a trial, and the
// prior. Widths, weights and truncation are those of Optuna 5.0's multivariate TPE (arXiv:2304.11127 names the parts).
#pragma once

#include <span>
#include <string>
#include <vector>

#include "potstill/base/rng.h"
#include "potstill/search/space.h"

namespace potstill {

class ParzenEstimator {
 public:
  // observations in the order of trial numbers, each with every parameter of the space.
  ParzenEstimator(const Space& space, std::span<const Params> observations);

  Params sample(Rng& rng) const;
  double log_pdf(const Params& point) const;  // stepped and categorical parameters count by their probability

  // Widths of a numeric parameter's kernels in the order of the observations, the prior's last (log space when log).
  std::vector<double> widths(const std::string& parameter) const;
  const std::vector<double>& weights() const { return weights_; }

 private:
  struct Kernels {
    std::string name;
    // numeric
    double low = 0, high = 0, step = 0;  // the original bounds
    bool log = false;
    double lower = 0, upper = 0;                // bounds of the density: widened by half a step, in log space when log
    std::vector<double> mus, sigmas, log_mass;  // [kernels]; log_mass: of the kernel's normal inside the bounds
    // categorical
    std::vector<std::vector<double>> table;  // [kernels][choices], each row sums to 1
  };
  static Kernels numeric_kernels(const std::string& name, const NumericRange& range,
                                 std::span<const Params> observations);
  static Kernels categorical_kernels(const std::string& name, size_t num_choices, std::span<const Params> observations);
  static double log_kernel(const Kernels& kernels, size_t k, double x);

  std::vector<double> weights_;  // [kernels], sum 1, the prior last
  std::vector<Kernels> parameters_;
};

// Weights of m observations before they are normalised: the newest 25 count in full, the ones before on a ramp.
std::vector<double> observation_weights(int64_t m);

}  // namespace potstill
