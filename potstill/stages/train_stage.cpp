#include "potstill/stages/train_stage.h"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"
#include "potstill/base/log.h"
#include "potstill/base/machine.h"
#include "potstill/distill/rendered_sample.h"
#include "potstill/distill/setup.h"
#include "potstill/distill/train.h"
#include "potstill/stages/knowledge.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

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
    journal_->append(nlohmann::ordered_json{{"step", step}, {"held_out", to_json(held_out)}}.dump());
  }
  void finish(std::string_view note) { progress_.finish(note); }

 private:
  std::unique_ptr<Journal> journal_;
  Progress progress_;
};

void log_memory(const std::vector<MemoryRow>& rows, bool checkpoints) {
  log_info("memory of this training{}", checkpoints ? "; layers are computed again for their gradients" : "");
  for (const auto& row : rows) log_info("  {:<46} {:>10}", row.what, format_bytes(row.bytes));
  log_info("  {:<46} {:>10}", "peak", format_bytes(total_bytes(rows)));
}

void require_cache(const fs::path& teacher) {
  if (is_knowledge_cache(teacher)) return;
  throw Error(ErrorKind::kUsage, teacher.string(), "is no knowledge cache, which several ranks need",
              "run `potstill teach` first, in one process; every rank reads its cache");
}

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
  if (inputs.data_seed) key.config["data_seed"] = *inputs.data_seed;
  return key;
}

void run_train_stage(const TrainInputs& inputs, const DistillConfig& config, const DistillDataConfig& data_config,
                     ArtifactWriter& out, RankGroup* group) {
  keep_freed_memory();
  if (group) require_cache(inputs.teacher);
  const DistillSetup setup = open_distill_setup(
      inputs.student,
      knowledge_of(inputs.student, inputs.teacher, inputs.data, data_config, inputs.dtype, inputs.device, out),
      inputs.data, data_config, inputs.dtype, inputs.device, inputs.data_seed.value_or(out.seed()));
  Agreement before;
  if (!setup.data.held_out.empty()) {
    before = measure_agreement(setup.student, *setup.teacher, setup.data, setup.data.held_out, config.tokens_per_batch,
                               config.loss_rows, group);
  }
  TrainLog log(out.file("train_log.jsonl"), num_train_steps(config, static_cast<int64_t>(setup.data.train.size())));
  out.mark_volatile("train_log.jsonl");  // it holds seconds
  TrainHooks hooks;
  hooks.group = group;
  hooks.measure_deltas = true;
  std::vector<MemoryRow> planned;
  hooks.on_plan = [&](const std::vector<MemoryRow>& rows, bool checkpoints) {
    planned = rows;
    log_memory(rows, checkpoints);
    out.record("checkpointed_activations", checkpoints);
  };
  hooks.on_step = [&](const TrainStep& step) { log.step(step); };
  hooks.on_eval = [&](int64_t step, const Agreement& held_out) {
    log.measured(step, held_out);
    return true;
  };
  const TrainResult result =
      train_lora(setup.student, *setup.teacher, setup.data, config, out.seed(), hooks, out.work_file("checkpoint"));
  log.finish(setup.data.held_out.empty() ? std::string()
                                         : fmt::format("held-out {} {:.4f} -> {:.4f}, agreement {:.1f} % -> {:.1f} %",
                                                       quantity_title(before.quantity), before.kl, result.held_out.kl,
                                                       100 * before.top1, 100 * result.held_out.top1));
  save_adapter(result.adapter, inputs.student.string(), out.folder());

  int64_t trainable = 0;
  for (const auto& parameter : lora_parameters(result.adapter)) trainable += parameter.numel();
  out.record("steps", result.steps);
  out.record("train_pairs", setup.data.train.size());
  out.record("held_out_pairs", setup.data.held_out.size());
  out.record("trainable_parameters", trainable);
  out.record("lr", config.peak_lr());
  out.record("diverged_and_retried", result.retries);
  out.record("knowledge", setup.teacher_summary);
  out.record("quantity", quantity_name(setup.teacher->quantity()));
  out.record("quantity_title", quantity_title(setup.teacher->quantity()));
  out.record("rendered_samples", rendered_samples(setup.data, *setup.package.tokenizer));
  out.record("final_loss", result.final_loss);
  out.record("held_out_before", to_json(before));
  out.record("held_out", to_json(result.held_out));
  out.measure("tokens_per_s", result.tokens_per_s);
  out.measure("planned_peak_bytes", total_bytes(planned));
  out.measure("resident_before_bytes", planned.empty() ? 0 : planned.front().bytes);
  if (group) out.measure("ranks", group->size());
  out.record("arithmetic", at::toString(setup.student.dtype()));
}

void join_train_stage(const TrainInputs& inputs, const DistillConfig& config, const DistillDataConfig& data_config,
                      uint64_t seed, RankGroup& group) {
  keep_freed_memory();
  require_cache(inputs.teacher);
  const DistillSetup setup =
      open_distill_setup(inputs.student, inputs.teacher, inputs.data, data_config, inputs.dtype, inputs.device, seed);
  if (!setup.data.held_out.empty()) {
    measure_agreement(setup.student, *setup.teacher, setup.data, setup.data.held_out, config.tokens_per_batch,
                      config.loss_rows, &group);
  }
  TrainHooks hooks;
  hooks.group = &group;
  const fs::path scratch = fs::temp_directory_path() / fmt::format("potstill-rank-{}-{}", group.rank(), ::getpid());
  try {
    train_lora(setup.student, *setup.teacher, setup.data, config, seed, hooks, scratch);
  } catch (...) {
    fs::remove_all(scratch);
    throw;
  }
  fs::remove_all(scratch);
}

}  // namespace potstill
