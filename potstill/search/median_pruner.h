// Giving up trials early: is this one behind the median of the others at the same step?
#pragma once

#include <cstdint>
#include <span>

#include "potstill/search/sampler.h"

namespace potstill {

// Whether the best that `trial` has reported so far is worse than the median of what the complete trials reported at
// its last step; what is not a number is. Nothing is pruned before num_startup_trials are complete, or where none of
// them reported at this step.                                    Optuna's MedianPruner; Golovin et al. 2017,
// section 3.2.2
bool is_behind_median(std::span<const PastTrial> trials, const PastTrial& trial, int64_t num_startup_trials = 5);

}  // namespace potstill
