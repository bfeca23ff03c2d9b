// Which parameters a study's objective hangs on.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "potstill/search/sampler.h"

namespace potstill {

// Share of each parameter in the variance of a Gaussian process fitted to the complete trials, with everything that it
// does together with others counted in (Sobol's total effects, by Jansen's estimator on 512 Sobol points); sums to 1.
// Empty with fewer than four complete trials.
std::map<std::string, double> parameter_importance(const Space& space, std::span<const PastTrial> trials);

// What the same model expects along one parameter while all others stay where the best trial has them.
struct ProfilePoint {
  nlohmann::json value;        // of the parameter, as a recipe says it
  double expected, low, high;  // of the objective: the model's mean, and what one standard deviation around it means
};
// `count` points evenly over a continuous parameter's range (its logarithm when log), or each of its values. Empty with
// fewer than four complete trials, or when the parameter is not searched.
std::vector<ProfilePoint> parameter_profile(const Space& space, std::span<const PastTrial> trials,
                                            const std::string& name, int64_t count = 21);

}  // namespace potstill
