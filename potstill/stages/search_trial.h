// One trial of the search: trains with its settings and judges the student by the objective.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <vector>

#include "potstill/distill/setup.h"
#include "potstill/eval/task.h"
#include "potstill/quant/quant_config.h"
#include "potstill/search/search_config.h"
#include "potstill/search/study.h"

namespace potstill {

// What trials and replicates share: one loaded student, the teacher's knowledge, what is not searched. Borrows all.
struct TrialContext {
  const SearchConfig& search;
  const QuantizeConfig& quantize;  // of the objective post-quant-kl
  const DistillSetup& setup;
  const std::filesystem::path& student;  // that setup was opened from
  const std::filesystem::path& pairs;
  std::vector<EvalTask> accuracy_tasks = {};  // of the objective accuracy
};

struct TrialOutcome {
  double value = 0;         // of the objective; smaller is better
  nlohmann::json held_out;  // the trained student's; with post-quant-kl the quantized one's beside it
  nlohmann::json accuracy;  // of each task, with the objective accuracy
  double tokens_per_s = 0;
  bool stopped = false;  // goes_on said so; there is no value then
};

// Trains and judges. `goes_on` is asked at each measurement on the way; `folder` holds checkpoints.
TrialOutcome run_training(const TrialContext& context, const DistillConfig& settings, uint64_t seed,
                          const std::filesystem::path& folder,
                          const std::function<bool(int64_t step, double value)>& goes_on = {});

// A trial of the study: reports what is measured on the way, gives up where pruning says so (TrialPruned), keeps what
// came out in the trial's user attributes. Returns the objective.
double run_trial(Trial& trial, const TrialContext& context, DistillConfig settings, const Space& space, uint64_t seed,
                 const std::filesystem::path& folder);

}  // namespace potstill
