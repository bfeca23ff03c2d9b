// TPE: the tree-structured Parzen estimator with Optuna 5.0's defaults: multivariate, constant liar, 24 candidates.
//   Bergstra et al. 2011; the parts by name in Watanabe, arXiv:2304.11127
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "potstill/search/sampler.h"

namespace potstill {

struct TpeOptions {
  int64_t n_startup_trials = 10;  // finished trials before the model takes over
  int64_t n_ei_candidates = 24;
  uint64_t seed = 0;  // of the start points alone
};

class TpeSampler : public PointSampler {
 public:
  explicit TpeSampler(TpeOptions options) : options_(options) {}
  Params sample(const Space& space, std::span<const PastTrial> trials, int64_t number, Rng& rng) const override;

 private:
  TpeOptions options_;
};

int64_t tpe_num_below(int64_t n);  // gamma: how many of n finished trials count as good

struct TpeSplit {
  std::vector<PastTrial> below, above;  // both by trial number
};
// The best n_below finished trials against the rest; running trials stand with the bad ones, so that workers spread.
TpeSplit tpe_split(std::span<const PastTrial> trials, int64_t n_below);

}  // namespace potstill
