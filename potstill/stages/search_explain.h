// Why a search chose the alpha that it did: how much the teacher's distributions helped beyond the pairs' labels.
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "potstill/search/sampler.h"

namespace potstill {

// {"best", "why", "profile": [{"alpha", "expected", "low", "high"}]}: the objective that the model of the trials
// expects along alpha, the other settings at the best trial's, and a sentence about it. Null when alpha was not
// searched or fewer than four trials came to an end.
nlohmann::ordered_json explain_alpha(const Space& space, std::span<const PastTrial> trials,
                                     const std::string& objective);

}  // namespace potstill
