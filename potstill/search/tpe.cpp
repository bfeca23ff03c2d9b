#include "potstill/search/tpe.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "potstill/search/parzen.h"

namespace potstill {
namespace {

bool is_finished(const PastTrial& trial) {
  return trial.state == TrialState::kComplete || trial.state == TrialState::kPruned;
}

// Pruned trials: whoever came farther first, then the smaller last value; one that never reported comes last.
std::pair<double, double> pruned_rank(const PastTrial& trial) {
  if (trial.intermediate.empty()) return {1.0, 0.0};
  const auto& [step, value] = *trial.intermediate.rbegin();
  return {-static_cast<double>(step), std::isnan(value) ? std::numeric_limits<double>::infinity() : value};
}

std::vector<Params> params_of(std::span<const PastTrial> trials) {
  std::vector<Params> params;
  for (const auto& trial : trials) params.push_back(trial.params);
  return params;
}

}  // namespace

int64_t tpe_num_below(int64_t n) { return std::min<int64_t>((n + 9) / 10, 25); }  // min(ceil(0.1 n), 25)

TpeSplit tpe_split(std::span<const PastTrial> trials, int64_t n_below) {
  std::vector<PastTrial> complete, pruned, running;
  for (const auto& trial : trials) {
    if (trial.state == TrialState::kComplete) complete.push_back(trial);
    if (trial.state == TrialState::kPruned) pruned.push_back(trial);
    if (trial.state == TrialState::kRunning) running.push_back(trial);
  }
  std::ranges::stable_sort(complete, {}, &PastTrial::value);
  std::ranges::stable_sort(pruned, {}, pruned_rank);
  std::vector<PastTrial> ranked = std::move(complete);
  ranked.insert(ranked.end(), pruned.begin(), pruned.end());
  const auto cut = ranked.begin() + std::min<int64_t>(n_below, static_cast<int64_t>(ranked.size()));
  TpeSplit split{.below = {ranked.begin(), cut}, .above = {cut, ranked.end()}};
  split.above.insert(split.above.end(), running.begin(), running.end());
  std::ranges::sort(split.below, {}, &PastTrial::number);
  std::ranges::sort(split.above, {}, &PastTrial::number);
  return split;
}

Params TpeSampler::sample(const Space& space, std::span<const PastTrial> trials, int64_t number, Rng& rng) const {
  Space searched;
  for (const auto& [name, distribution] : space) {
    if (!is_single(distribution)) searched.emplace(name, distribution);
  }
  Params point = sample_uniformly(space, rng);  // what the model does not choose: parameters with a single value
  if (searched.empty()) return point;

  const auto finished = static_cast<int64_t>(std::ranges::count_if(trials, is_finished));
  if (finished < options_.n_startup_trials) {
    if (number >= options_.n_startup_trials) return point;  // start points failed or are still running
    return start_points(space, options_.n_startup_trials, options_.seed)[static_cast<size_t>(number)];
  }
  const TpeSplit split = tpe_split(trials, tpe_num_below(finished));
  const ParzenEstimator below(searched, params_of(split.below)), above(searched, params_of(split.above));
  Params best;
  double best_score = -std::numeric_limits<double>::infinity();
  for (int64_t i = 0; i < options_.n_ei_candidates; ++i) {
    Params candidate = below.sample(rng);
    const double score = below.log_pdf(candidate) - above.log_pdf(candidate);
    if (best.empty() || score > best_score) {
      best_score = score;
      best = std::move(candidate);
    }
  }
  for (const auto& [name, value] : best) point[name] = value;
  return point;
}

}  // namespace potstill
