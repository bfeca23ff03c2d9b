#include "potstill/stages/search_stage.h"

#include <fmt/format.h>

#include <string>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"
#include "potstill/base/log.h"
#include "potstill/distill/batches.h"
#include "potstill/distill/kl_loss.h"
#include "potstill/distill/setup.h"
#include "potstill/distill/train.h"
#include "potstill/search/study.h"
#include "potstill/stages/search_space.h"

namespace potstill {
namespace {

// The loss of [train] on the held-out pairs, at the trial's own alpha and temperature.
double held_out_loss(const Transformer& student, const TeacherSignal& teacher, const DistillData& data,
                     const DistillConfig& settings) {
  const at::NoGradGuard no_grad;
  const auto offsets = answer_position_offsets(data);
  const KlLossOptions options{.alpha = settings.alpha,
                              .temperature = settings.temperature,
                              .vocab_limit = std::min(teacher.vocab_limit(), student.lm_head.size(0)),
                              .rows = settings.loss_rows};
  KlLossSums sums;
  for (const auto& batch :
       make_answer_batches(data, offsets, data.held_out, settings.tokens_per_batch, student.device())) {
    const auto hidden = student.hidden_states(batch.packed).index_select(0, batch.rows);
    const TeacherLogits logits = [&](int64_t begin, int64_t end) {
      return teacher.logits(batch.positions.narrow(0, begin, end - begin), student.device())
          .narrow(1, 0, options.vocab_limit);
    };
    sums += kl_loss(hidden, student.lm_head, batch.labels, logits, options, 1.0, nullptr);
  }
  return sums.loss / static_cast<double>(sums.tokens);
}

double objective_of(const std::string& objective, const Agreement& held_out) {
  return objective == "agreement" ? 1.0 - held_out.top1 : held_out.kl;
}

double run_trial(Trial& trial, const DistillSetup& setup, const SearchConfig& search, const DistillConfig& settings,
                 uint64_t seed, const std::filesystem::path& checkpoint) {
  TrainHooks hooks;
  hooks.on_eval = [&](int64_t step, const Agreement& held_out) {
    if (search.objective != "eval_loss") trial.report(step, objective_of(search.objective, held_out));
    return true;
  };
  const TrainResult result = train_lora(setup.student, *setup.teacher, setup.data, settings, seed, hooks, checkpoint);
  trial.set_user_attribute("held_out", {{"kl", result.held_out.kl},
                                        {"top1", result.held_out.top1},
                                        {"ce", result.held_out.ce},
                                        {"teacher_ce", result.held_out.teacher_ce},
                                        {"tokens", result.held_out.tokens}});
  trial.set_user_attribute("settings", nlohmann::json(searched_settings(settings)));
  trial.set_user_attribute("tokens_per_s", result.tokens_per_s);
  return search.objective == "eval_loss" ? held_out_loss(result.student, *setup.teacher, setup.data, settings)
                                         : objective_of(search.objective, result.held_out);
}

nlohmann::ordered_json trial_line(const Study& study, const StoredTrial& trial, const DistillConfig& train) {
  nlohmann::ordered_json line = {{"number", trial.number}, {"state", state_name(trial.state)}};
  line["value"] = trial.state == TrialState::kComplete ? nlohmann::ordered_json(trial.value) : nlohmann::ordered_json();
  line["params"] = searched_settings(settings_at(study.params_of(trial), train));
  for (const char* key : {"held_out", "error"}) {
    const auto found = trial.user_attributes.find(key);
    if (found != trial.user_attributes.end()) line[key] = nlohmann::ordered_json(found->second);
  }
  return line;
}

std::string overlay_yaml(const nlohmann::ordered_json& best, int64_t trials) {
  std::string text =
      fmt::format("# The best of {} trials: number {}, {} = {}. Put it over a recipe's [train].\ntrain:\n", trials,
                  best["trial"].dump(), best["objective"].get<std::string>(), best["value"].dump());
  for (const auto& [name, value] : best["train"].items()) text += fmt::format("  {}: {}\n", name, value.dump());
  return text;
}

void write_results(Study& study, const SearchConfig& search, const DistillConfig& train, ArtifactWriter& out) {
  std::string lines;
  const auto trials = study.trials();
  for (const auto& trial : trials) lines += trial_line(study, trial, train).dump() + "\n";
  write_file_atomically(out.file("trials.jsonl"), lines);

  const auto best = study.best();
  if (!best) {
    throw Error(ErrorKind::kNumeric, "search", fmt::format("none of {} trials came to an end", trials.size()),
                "try lower learning rates: set [search] lr");
  }
  const nlohmann::ordered_json summary = {{"trial", best->number},
                                          {"objective", search.objective},
                                          {"value", best->value},
                                          {"held_out", best->user_attributes.at("held_out")},
                                          {"train", searched_settings(settings_at(study.params_of(*best), train))}};
  write_file_atomically(out.file("best.json"), summary.dump(2) + "\n");
  write_file_atomically(out.file("best.yaml"), overlay_yaml(summary, static_cast<int64_t>(trials.size())));
  out.record("trials", trials.size());
  out.record("best", summary);
}

}  // namespace

StageKey search_key(const SearchInputs& inputs, const SearchConfig& search, const DistillConfig& train,
                    const DistillDataConfig& data, uint64_t seed) {
  nlohmann::ordered_json config = config_to_json(search);
  config["train"] = config_to_json(train);
  config["data"] = config_to_json(data);
  config["dtype"] = inputs.dtype;
  return {.stage = "search",
          .config = config,
          .inputs = {{"student", inputs.student}, {"knowledge", inputs.knowledge}, {"pairs", inputs.pairs}},
          .seed = seed};
}

void run_search_stage(const SearchInputs& inputs, const SearchConfig& search, const DistillConfig& train,
                      const DistillDataConfig& data, ArtifactWriter& out) {
  check_config(search, "search");
  if (search.objective == "eval_loss") {
    log_warning(
        "search: with eval_loss, trials at different alpha and temperature are judged by different quantities, and "
        "alpha near 1 wins by construction; 'kl' compares them fairly");
  }
  const Space space = training_space(search, train);
  const DistillSetup setup =
      open_distill_setup(inputs.student, inputs.knowledge, inputs.pairs, data, inputs.dtype, inputs.device, out.seed());
  if (setup.data.held_out.empty()) {
    throw Error(ErrorKind::kInput, inputs.pairs.string(), "holds out no pair to judge trials by",
                "set held_out above 0, and have more pairs");
  }
  const auto lock = std::filesystem::path(out.file("study.db").string() + ".lock");
  {
    Study study(out.file("study.db"), space,
                {.sampler = search.sampler, .n_startup_trials = search.num_startup_trials(), .seed = out.seed()});
    study.enqueue(known_point(space, train));
    const Agreement before = measure_agreement(setup.student, *setup.teacher, setup.data, setup.data.held_out);
    log_info("search: {} trials over {} held-out pairs; untrained: kl {:.4f}, top-1 agreement {:.1f} %", search.trials,
             setup.data.held_out.size(), before.kl, 100.0 * before.top1);
    out.record("untrained", {{"kl", before.kl}, {"top1", before.top1}, {"ce", before.ce}});
    Progress progress("search", search.trials, "trials");
    for (const auto& trial : study.trials()) progress.advance(trial.state == TrialState::kComplete ? 1 : 0);
    study.minimise(
        [&](Trial& trial) {
          const auto settings = settings_at(trial.params(), train);
          const auto checkpoint = out.work_file(fmt::format("trial-{}", trial.number()));
          log_debug("search: trial {}: {}", trial.number(), searched_settings(settings).dump());
          const double value = run_trial(trial, setup, search, settings, out.seed(), checkpoint);
          std::filesystem::remove_all(checkpoint);
          return value;
        },
        search.trials,
        [&](const StoredTrial& trial) {
          const auto best = study.best();
          progress.advance(1, best ? fmt::format("{} {:.4f}, best {:.4f} (trial {})", search.objective, trial.value,
                                                 best->value, best->number)
                                   : fmt::format("trial {} failed", trial.number));
        });
    progress.finish();
    write_results(study, search, train, out);
  }
  std::filesystem::remove(lock);
  out.mark_volatile("study.db");  // it holds the times of the trials
}

DistillConfig best_settings(const Artifact& search, const DistillConfig& train) {
  return with_settings(read_json_file(search.path / "best.json"), train);
}

}  // namespace potstill
