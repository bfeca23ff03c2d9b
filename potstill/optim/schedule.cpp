#include "potstill/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace potstill {

double CosineSchedule::lr(int64_t step) const {
  if (step < warmup_steps) return peak * static_cast<double>(step + 1) / static_cast<double>(warmup_steps);
  const double least = peak * min_ratio;
  const auto span = static_cast<double>(std::max<int64_t>(1, num_steps - warmup_steps));
  const double part = std::min(1.0, static_cast<double>(step - warmup_steps) / span);
  return least + 0.5 * (peak - least) * (1 + std::cos(std::numbers::pi * part));
}

}  // namespace potstill
