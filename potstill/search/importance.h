// Which parameters a study's objective hangs on.
#pragma once

#include <map>
#include <span>
#include <string>

#include "potstill/search/sampler.h"

namespace potstill {

// Share of each parameter in the variance of a Gaussian process fitted to the complete trials, with everything that it
// does together with others counted in (Sobol's total effects, by Jansen's estimator on 512 Sobol points); sums to 1.
// Empty with fewer than four complete trials.
std::map<std::string, double> parameter_importance(const Space& space, std::span<const PastTrial> trials);

}  // namespace potstill
