// GpSampler: the next point is where a Gaussian process expects the most improvement. With a few dozen trials it learns
// more from each than TPE does, which starts from ten random ones.
//   expected improvement by its logarithm, which has a slope where the improvement itself is nil: arXiv:2310.20708
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "potstill/search/sampler.h"

namespace potstill {

struct GpOptions {
  int64_t n_startup_trials = 4;  // scrambled Sobol points before the model takes over
  uint64_t seed = 0;             // of the start points alone
};

// Complete trials count by their value; pruned ones by the last value that they reported, but as no better than the
// median; failed ones as the worst seen (a region that diverges is one to leave). A running trial counts as if it had
// come out as the model expects, so that workers side by side try different points (a "constant liar" whose lie is the
// model's own mean).
class GpSampler : public PointSampler {
 public:
  explicit GpSampler(GpOptions options) : options_(options) {}
  Params sample(const Space& space, std::span<const PastTrial> trials, int64_t number, Rng& rng) const override;

 private:
  GpOptions options_;
};

// Values as the model likes them: mean 0, variance 1, and without the long upper tail that a bad region gives. Only the
// order of large values matters for finding small ones.      Yeo and Johnson 2000, λ by maximum likelihood
std::vector<double> normalised_objective(const std::vector<double>& values);

// log E[max(0, z + N(0, 1))], right to the last digits for any z; `slope` receives its derivative.
double log_expected_improvement(double z, double* slope = nullptr);

}  // namespace potstill
