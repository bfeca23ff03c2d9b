#include "potstill/search/median_pruner.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace potstill {

bool is_behind_median(std::span<const PastTrial> trials, const PastTrial& trial, int64_t num_startup_trials) {
  if (trial.intermediate.empty()) return false;
  const int64_t step = trial.intermediate.rbegin()->first;
  int64_t complete = 0;
  std::vector<double> others;
  for (const auto& other : trials) {
    if (other.state != TrialState::kComplete) continue;
    ++complete;
    const auto found = other.intermediate.find(step);
    if (found != other.intermediate.end() && !std::isnan(found->second)) others.push_back(found->second);
  }
  if (complete < num_startup_trials || others.empty()) return false;
  double best = std::numeric_limits<double>::quiet_NaN();
  for (const auto& [at, value] : trial.intermediate) best = std::isnan(best) ? value : std::fmin(best, value);
  if (std::isnan(best)) return true;
  std::ranges::sort(others);
  const size_t middle = others.size() / 2;
  const double median = others.size() % 2 == 1 ? others[middle] : 0.5 * (others[middle - 1] + others[middle]);
  return best > median;
}

}  // namespace potstill
