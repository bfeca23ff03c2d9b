// Student's t distribution: intervals of means of few values.
#pragma once

#include <vector>

#include "potstill/eval/paired_statistics.h"

namespace potstill {

// x with P(T <= x) = probability, of `freedom` > 0 degrees of freedom (any positive number); probability in (0, 1).
double student_t_quantile(double probability, double freedom);

// Mean and its 95 % interval from independent values; one value alone has no interval (NaN).
struct MeanInterval {
  double mean = 0;
  Interval interval;
};
MeanInterval mean_interval(const std::vector<double>& values);

}  // namespace potstill
