// A smooth function's local minimum inside a box: L-BFGS with projection, for the few variables of a Gaussian process.
#pragma once

#include <functional>
#include <span>
#include <vector>

namespace potstill {

struct BoxMinimum {
  std::vector<double> x;
  double value = 0;
};

// f(x, gradient) returns the value and fills the gradient; a value that is not finite counts as too large. Stops after
// max_evaluations of f, or when neither a step nor the projected gradient says anything more.
using SmoothFunction = std::function<double(std::span<const double> x, std::span<double> gradient)>;
BoxMinimum minimize_in_box(const SmoothFunction& f, std::vector<double> start, std::span<const double> low,
                           std::span<const double> high, int max_evaluations);

}  // namespace potstill
