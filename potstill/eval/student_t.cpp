#include "potstill/eval/student_t.h"

#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <limits>

namespace potstill {

double student_t_quantile(double probability, double freedom) {
  return boost::math::quantile(boost::math::students_t(freedom), probability);
}

MeanInterval mean_interval(const std::vector<double>& values) {
  const auto n = static_cast<double>(values.size());
  MeanInterval result;
  for (const double value : values) result.mean += value / n;
  double half = std::numeric_limits<double>::quiet_NaN();
  if (values.size() > 1) {
    double squares = 0;
    for (const double value : values) squares += (value - result.mean) * (value - result.mean);
    half = student_t_quantile(0.975, n - 1) * std::sqrt(squares / (n - 1) / n);
  }
  result.interval = {result.mean - half, result.mean + half};
  return result;
}

}  // namespace potstill
