// PointSampler: past trials -> the next point. A sampler holds no state: its draws come from the caller's stream.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "potstill/base/rng.h"
#include "potstill/search/space.h"

namespace potstill {

enum class TrialState { kRunning, kComplete, kPruned, kFail, kWaiting };

// What a sampler may know of a trial.
struct PastTrial {
  int64_t number = 0;
  TrialState state = TrialState::kComplete;
  Params params = {};
  double value = 0.0;                           // of a complete trial; smaller is better
  std::map<int64_t, double> intermediate = {};  // step -> value
};

class PointSampler {
 public:
  virtual ~PointSampler() = default;
  // trials: by number; those of other states than complete, pruned and running are passed over.
  virtual Params sample(const Space& space, std::span<const PastTrial> trials, int64_t number, Rng& rng) const = 0;
};

// Evenly over each range (its logarithm when log), over its steps or choices.
Params sample_uniformly(const Space& space, Rng& rng);

class RandomSampler : public PointSampler {
 public:
  Params sample(const Space& space, std::span<const PastTrial> trials, int64_t number, Rng& rng) const override;
};

// `count` start points that cover every parameter's range evenly (a Latin hypercube, the one of many whose nearest two
// points lie farthest apart): with few trials, independent draws would leave holes. Depends on the seed alone, so trial
// n has the same start point however often the search was killed.
std::vector<Params> start_points(const Space& space, int64_t count, uint64_t seed);

}  // namespace potstill
