// THE training loop: a LoRA student learns the teacher's distributions on the answers of a data set. `potstill train`,
// every search trial and the tests run this one.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>

#include "potstill/distill/agreement.h"
#include "potstill/distill/distill_config.h"
#include "potstill/distill/records.h"
#include "potstill/distill/teacher_signal.h"
#include "potstill/nn/lora.h"
#include "potstill/nn/transformer.h"

namespace potstill {

// One optimizer step, as train_log.jsonl records it. kl, ce and loss are means over the step's answer tokens.
struct TrainStep {
  int64_t step = 0, num_steps = 0;  // 1-based
  double loss = 0;                  // alpha · T² · kl + (1 - alpha) · ce
  double kl = 0, ce = 0;            // KL at temperature T, without T²; cross entropy at T = 1
  double lr = 0, grad_norm = 0;     // before clipping
  double update_rms = 0;            // root mean square change of a factor's entry in this step
  int64_t tokens = 0, answer_tokens = 0;
  double seconds = 0, optimizer_seconds = 0;  // the second is the optimizer's part of the first
};

nlohmann::ordered_json to_json(const TrainStep& step);  // a line of train_log.jsonl

// A run that goes on from a checkpoint tells its hooks of the steps and measurements before it again.
struct TrainHooks {
  std::function<void(LoraAdapter&)> on_start;  // may set other initial factors, such as an adapter's of an earlier run
  std::function<void(const TrainStep&)> on_step;
  // After every eval_every steps and at the end; false stops the training there (a pruned trial).
  std::function<bool(int64_t step, const Agreement&)> on_eval;
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
// When the loss or a gradient is not finite, or the smoothed loss is three times its lowest and above the first, the
// run goes back to the step where it was lowest and on at a tenth of the learning rate, twice at most; the hooks hear
// of those steps again. After that, or with on_divergence "stop", throws Error(kNumeric) naming the step and its pairs.
// Throws Error(kInterrupted) after the step at hand when Ctrl-C was pressed.
TrainResult train_lora(Transformer student, const TeacherSignal& teacher, const DistillData& data,
                       const DistillConfig& config, uint64_t seed, const TrainHooks& hooks = {},
                       const std::filesystem::path& checkpoint_folder = {});

// "adamw:0.5,muon:0.5" -> the optimizers in turn. At a switch the factors, the data order and the schedule go on; the
// new optimizer's own state begins at zero, its step count too, and it has its own default rate where `lr` is 0. Throws
// Error(kUsage).
struct OptimizerPhase {
  std::string optimizer;
  double until = 1;  // share of the steps
};
std::vector<OptimizerPhase> optimizer_phases(const std::string& text);

// Steps of a run: ceil(epochs · pairs / batch_size).
int64_t num_train_steps(const DistillConfig& config, int64_t train_pairs);

}  // namespace potstill
