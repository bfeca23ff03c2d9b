#include "potstill/stages/train_stage.h"

#include <fmt/format.h>

#include <filesystem>

#include "potstill/base/atomic_file.h"
#include "potstill/base/jsonl.h"
#include "potstill/base/log.h"
#include "potstill/base/machine.h"
#include "potstill/distill/setup.h"
#include "potstill/distill/train.h"
#include "potstill/stages/knowledge.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

nlohmann::ordered_json agreement_json(const Agreement& agreement) {
  return {{"kl", agreement.kl},
          {"top1", agreement.top1},
          {"ce", agreement.ce},
          {"teacher_ce", agreement.teacher_ce},
          {"tokens", agreement.tokens}};
}

// train_log.jsonl and the progress line. A resumed run tells its earlier steps again, so the file is always written
// anew.
class TrainLog {
 public:
  TrainLog(const fs::path& path, int64_t num_steps) : progress_("train", num_steps, "steps") {
    fs::remove(path);
    journal_ = std::make_unique<Journal>(path);
  }
  void step(const TrainStep& step) {
    journal_->append(to_json(step).dump());
    progress_.advance(1, fmt::format("loss {:.4f}", step.loss));
  }
  void measured(int64_t step, const Agreement& held_out) {
    journal_->append(nlohmann::ordered_json{{"step", step}, {"held_out", agreement_json(held_out)}}.dump());
  }
  void finish(std::string_view note) { progress_.finish(note); }

 private:
  std::unique_ptr<Journal> journal_;
  Progress progress_;
};

}  // namespace

StageKey train_key(const TrainInputs& inputs, const DistillConfig& config, const DistillDataConfig& data,
                   uint64_t seed) {
  StageKey key{.stage = "train",
               .config = config_to_json(config),
               .inputs = {{"student", inputs.student}, {"teacher", inputs.teacher}, {"data", inputs.data}},
               .seed = seed};
  key.config.update(config_to_json(data));
  key.config["dtype"] = inputs.dtype;
  key.config["device"] = inputs.device;
  return key;
}

void run_train_stage(const TrainInputs& inputs, const DistillConfig& config, const DistillDataConfig& data_config,
                     ArtifactWriter& out) {
  keep_freed_memory();
  const DistillSetup setup = open_distill_setup(
      inputs.student, knowledge_of(inputs.teacher, inputs.data, data_config, inputs.dtype, inputs.device, out),
      inputs.data, data_config, inputs.dtype, inputs.device, out.seed());
  Agreement before;
  if (!setup.data.held_out.empty()) {
    before = measure_agreement(setup.student, *setup.teacher, setup.data, setup.data.held_out, config.tokens_per_batch,
                               config.loss_rows);
  }
  TrainLog log(out.file("train_log.jsonl"), num_train_steps(config, static_cast<int64_t>(setup.data.train.size())));
  out.mark_volatile("train_log.jsonl");  // it holds seconds
  TrainHooks hooks;
  hooks.on_step = [&](const TrainStep& step) { log.step(step); };
  hooks.on_eval = [&](int64_t step, const Agreement& held_out) {
    log.measured(step, held_out);
    return true;
  };
  const TrainResult result =
      train_lora(setup.student, *setup.teacher, setup.data, config, out.seed(), hooks, out.work_file("checkpoint"));
  log.finish(setup.data.held_out.empty()
                 ? std::string()
                 : fmt::format("held-out KL {:.4f} -> {:.4f}, agreement {:.1f} % -> {:.1f} %", before.kl,
                               result.held_out.kl, 100 * before.top1, 100 * result.held_out.top1));
  save_adapter(result.adapter, inputs.student.string(), out.folder());

  int64_t trainable = 0;
  for (const auto& parameter : lora_parameters(result.adapter)) trainable += parameter.numel();
  out.record("steps", result.steps);
  out.record("train_pairs", setup.data.train.size());
  out.record("held_out_pairs", setup.data.held_out.size());
  out.record("trainable_parameters", trainable);
  out.record("lr", config.peak_lr());
  out.record("diverged_and_retried", result.retries);
  out.record("final_loss", result.final_loss);
  out.record("held_out_before", agreement_json(before));
  out.record("held_out", agreement_json(result.held_out));
  out.measure("tokens_per_s", result.tokens_per_s);
  out.record("arithmetic", at::toString(setup.student.dtype()));
}

}  // namespace potstill
