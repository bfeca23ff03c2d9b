// THE training loop: a LoRA student learns the teacher's distributions on the answers of a data set. `potstill train`,
// every search trial and the tests run this one.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <vector>

#include "potstill/distill/agreement.h"
#include "potstill/distill/distill_config.h"
#include "potstill/distill/optimizer_phases.h"
#include "potstill/distill/rank_group.h"
#include "potstill/distill/records.h"
#include "potstill/distill/teacher_signal.h"
#include "potstill/distill/train_cost.h"
#include "potstill/distill/train_step.h"
#include "potstill/nn/lora.h"
#include "potstill/nn/transformer.h"

namespace potstill {

// A run that goes on from a checkpoint tells its hooks of the steps and measurements before it again.
struct TrainHooks {
  std::function<void(LoraAdapter&)> on_start;  // may set other initial factors, such as an adapter's of an earlier run
  std::function<void(const TrainStep&)> on_step;
  // After every eval_every steps and at the end; false stops the training there (a pruned trial).
  std::function<bool(int64_t step, const Agreement&)> on_eval;
  // The table of what the run will keep in memory, before its first step; and whether layers are computed again.
  std::function<void(const std::vector<MemoryRow>&, bool checkpoint_activations)> on_plan;
  bool measure_deltas = false;  // fill delta_norm_ratio and flop_share of each step
  RankGroup* group = nullptr;   // the ranks that train together; this one alone writes checkpoints if it is the first
};

struct TrainResult {
  Transformer student;  // shares the given student's weights; the adapter is attached
  LoraAdapter adapter;
  Agreement held_out;  // at the end, on the held-out pairs; with none held out, zeros and tokens = 0
  int64_t steps = 0;
  int retries = 0;             // times that the run diverged and went back to its last good step
  bool stopped_early = false;  // on_eval said so
  double final_loss = 0;       // mean of the last tenth of the steps, at least one
  double tokens_per_s = 0;
};

// Trains fresh factors on `student`, whose weights are shared, not changed: trials may use one loaded student. With a
// checkpoint folder the state of the run (factors, optimizer, step, log) is saved there every config.checkpoint_every
// steps and on Ctrl-C, and a run that finds one goes on from it to the same bytes as an undisturbed run.
// A run diverges when the loss or a gradient is not finite; when the smoothed loss is three times its lowest; or when,
// smoothed and without T², it is above ln(vocabulary), a guess's, and above where it began. It then goes back to the
// step where it was lowest and on at a tenth of the learning rate, twice at most; the hooks hear of those steps again.
// After that, or with on_divergence "stop", throws Error(kNumeric) naming the step and its pairs.
// Throws Error(kInterrupted) after the step at hand when Ctrl-C was pressed (on any rank).
// With hooks.group each rank takes every size-th pair of a step, and only gradients of the factors and a few sums go
// between the ranks: the result is one process's up to the order of sums (dropout draws other masks).
TrainResult train_lora(Transformer student, const TeacherSignal& teacher, const DistillData& data,
                       const DistillConfig& config, uint64_t seed, const TrainHooks& hooks = {},
                       const std::filesystem::path& checkpoint_folder = {});

// Steps of a run: ceil(epochs · pairs / batch_size).
int64_t num_train_steps(const DistillConfig& config, int64_t train_pairs);

}  // namespace potstill
