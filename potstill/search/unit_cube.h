// A space seen as the unit cube: one coordinate a parameter, in the order of the names. Equal lengths of a coordinate
// are equal shares of the range (of its logarithm when log), of its steps or of its choices.
#pragma once

#include <vector>

#include "potstill/search/space.h"

namespace potstill {

using UnitPoint = std::vector<double>;

// u in [0, 1] -> a value of the distribution, and back: a step or a choice comes back as the middle of its share.
double from_unit(const Distribution& distribution, double u);
double to_unit(const Distribution& distribution, double internal);

Params params_from_unit(const Space& space, const UnitPoint& point);
UnitPoint unit_from_params(const Space& space, const Params& params);

// How far apart two values of a coordinate are is known for numbers and for choices that are rising or falling numbers
// (ranks of 4, 8, 16 lie in an order); other choices are only equal or not.
bool is_unordered(const Distribution& distribution);
// Values a coordinate can take: 0 = a continuum.
int64_t num_values(const Distribution& distribution);

}  // namespace potstill
