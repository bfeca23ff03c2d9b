#include "potstill/stages/search_stage.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"
#include "potstill/base/log.h"
#include "potstill/base/machine.h"
#include "potstill/base/rng.h"
#include "potstill/distill/agreement.h"
#include "potstill/eval/student_t.h"
#include "potstill/recipe/train_overlay.h"
#include "potstill/search/importance.h"
#include "potstill/search/study.h"
#include "potstill/stages/eval_tasks.h"
#include "potstill/stages/knowledge.h"
#include "potstill/stages/search_explain.h"
#include "potstill/stages/search_space.h"
#include "potstill/stages/search_trial.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

// The best settings again under other seeds: how much of their lead was luck. Student's t for the 95 % interval.
nlohmann::ordered_json run_replicates(const TrialContext& context, const DistillConfig& settings, int64_t count,
                                      ArtifactWriter& out) {
  std::vector<double> values;
  Progress progress("replicates", count, "runs");
  for (int64_t i = 0; i < count; ++i) {
    const auto kept = out.work_file(fmt::format("replicate-{}.json", i));
    if (!std::filesystem::exists(kept)) {
      const auto folder = out.work_file(fmt::format("replicate-{}", i));
      const uint64_t seed = derive_seed(out.seed(), fmt::format("search/replicate/{}", i));
      const auto outcome = run_training(context, settings, seed, folder);
      std::filesystem::remove_all(folder);
      write_file_atomically(kept, nlohmann::json{{"value", outcome.value}}.dump());
    }
    values.push_back(read_json_file(kept).at("value").get<double>());
    progress.advance(1, fmt::format("{:.4f}", values.back()));
  }
  progress.finish();
  const auto [mean, interval] = mean_interval(values);
  return {{"values", values}, {"mean", mean}, {"interval95", {interval.low, interval.high}}};
}

nlohmann::ordered_json trial_line(const Study& study, const StoredTrial& trial, const DistillConfig& train) {
  nlohmann::ordered_json line = {{"number", trial.number}, {"state", state_name(trial.state)}};
  line["value"] = trial.state == TrialState::kComplete ? nlohmann::ordered_json(trial.value) : nlohmann::ordered_json();
  line["params"] = searched_settings(settings_at(study.params_of(trial), train), study.space());
  if (trial.state == TrialState::kPruned && !trial.intermediate.empty()) {
    line["pruned_at"] = {{"step", trial.intermediate.rbegin()->first}, {"value", trial.intermediate.rbegin()->second}};
  }
  for (const char* key : {"held_out", "accuracy", "error"}) {
    const auto found = trial.user_attributes.find(key);
    if (found != trial.user_attributes.end()) line[key] = nlohmann::ordered_json(found->second);
  }
  return line;
}

std::vector<EvalTask> judging_tasks(const SearchConfig& search) {
  if (search.objective != "accuracy") return {};
  if (search.accuracy_tasks.empty()) {
    throw Error(ErrorKind::kUsage, "search", "the objective accuracy needs accuracy_tasks",
                "for example --accuracy-tasks arc_easy --accuracy-data DIR");
  }
  return tuning_tasks(search.accuracy_tasks, search.accuracy_split);
}

void require_held_out(const DistillSetup& setup, const SearchInputs& inputs) {
  if (!setup.data.held_out.empty()) return;
  throw Error(ErrorKind::kInput, inputs.pairs.string(), "holds out no pair to judge trials by",
              "set held_out above 0, and have more pairs");
}

StudyOptions study_options(const SearchConfig& search, uint64_t seed) {
  return {.sampler = search.sampler_name(), .n_startup_trials = search.num_startup_trials(), .seed = seed};
}

// Returns how many trials this worker did. `work` holds their checkpoints.
int64_t run_trials(Study& study, const TrialContext& context, const DistillConfig& train, uint64_t seed,
                   const fs::path& work) {
  const SearchConfig& search = context.search;
  Progress progress("search", search.trials, "trials");
  for (const auto& trial : study.trials()) progress.advance(trial.state == TrialState::kComplete ? 1 : 0);
  int64_t done = 0;
  study.minimise(
      [&](Trial& trial) {
        const auto settings = settings_at(trial.params(), train);
        const fs::path checkpoint = work / fmt::format("trial-{}", trial.number());
        log_debug("search: trial {}: {}", trial.number(), searched_settings(settings, study.space()).dump());
        const double value = run_trial(trial, context, settings, study.space(), seed, checkpoint);
        fs::remove_all(checkpoint);
        return value;
      },
      search.trials,
      [&](const StoredTrial& trial) {
        ++done;
        const auto best = study.best();
        progress.advance(1, best ? fmt::format("{} {:.4f}, best {:.4f} (trial {})", search.objective, trial.value,
                                               best->value, best->number)
                                 : fmt::format("trial {} failed", trial.number));
      });
  progress.finish();
  return done;
}

std::string overlay_yaml(const nlohmann::ordered_json& best, int64_t trials) {
  std::string text =
      fmt::format("# The best of {} trials: number {}, {} = {}. Put it over a recipe's [train].\ntrain:\n", trials,
                  best["trial"].dump(), best["objective"].get<std::string>(), best["value"].dump());
  for (const auto& [name, value] : best["train"].items()) text += fmt::format("  {}: {}\n", name, value.dump());
  return text;
}

void write_results(Study& study, const SearchConfig& search, const DistillConfig& train,
                   const nlohmann::ordered_json& replicates, ArtifactWriter& out) {
  std::string lines;
  const auto trials = study.trials();
  for (const auto& trial : trials) lines += trial_line(study, trial, train).dump() + "\n";
  write_file_atomically(out.file("trials.jsonl"), lines);

  const auto best = study.best();
  if (!best) {
    throw Error(ErrorKind::kNumeric, "search", fmt::format("none of {} trials came to an end", trials.size()),
                "try lower learning rates: set [search] lr");
  }
  nlohmann::ordered_json summary = {
      {"trial", best->number},
      {"objective", search.objective},
      {"value", best->value},
      {"held_out", best->user_attributes.at("held_out")},
      {"train", searched_settings(settings_at(study.params_of(*best), train), study.space())}};
  if (best->user_attributes.contains("accuracy")) summary["accuracy"] = best->user_attributes.at("accuracy");
  const std::vector<PastTrial> past(trials.begin(), trials.end());
  if (const auto importance = parameter_importance(study.space(), past); !importance.empty()) {
    summary["importance"] = importance;
  }
  if (const auto alpha = explain_alpha(study.space(), past, search.objective); !alpha.is_null())
    summary["alpha"] = alpha;
  if (!replicates.is_null()) summary["replicates"] = replicates;
  write_file_atomically(out.file("best.json"), summary.dump(2) + "\n");
  write_file_atomically(out.file("best.yaml"), overlay_yaml(summary, static_cast<int64_t>(trials.size())));
  out.record("trials", trials.size());
  out.record("best", summary);
}

}  // namespace

StageKey search_key(const SearchInputs& inputs, const SearchConfig& search, const DistillConfig& train,
                    const DistillDataConfig& data, const QuantizeConfig& quantize, uint64_t seed) {
  nlohmann::ordered_json config = config_to_json(search);
  if (search.objective == "post-quant-kl") config["quantize"] = config_to_json(quantize);
  config["train"] = config_to_json(train);
  config["data"] = config_to_json(data);
  config["dtype"] = inputs.dtype;
  StageKey key{.stage = "search",
               .config = config,
               .inputs = {{"student", inputs.student}, {"knowledge", inputs.knowledge}, {"pairs", inputs.pairs}},
               .seed = seed};
  for (const auto& task : judging_tasks(search)) {
    key.inputs.push_back({"rows: " + task.name, task.rows_path(search.accuracy_data)});
  }
  for (const auto& file : search.first) key.inputs.push_back({"first: " + file, file});
  return key;
}

void run_search_stage(const SearchInputs& inputs, const SearchConfig& search, const DistillConfig& train,
                      const DistillDataConfig& data, const QuantizeConfig& quantize, ArtifactWriter& out) {
  check_config(search, "search");
  keep_freed_memory();
  if (search.objective == "eval_loss") {
    log_warning(
        "search: with eval_loss, trials at different alpha and temperature are judged by different quantities, and "
        "alpha near 1 wins by construction; 'kl' and 'post-quant-kl' compare them fairly");
  }
  const Space space = training_space(search, train);
  const auto knowledge =
      knowledge_of(inputs.student, inputs.knowledge, inputs.pairs, data, inputs.dtype, inputs.device, out);
  const DistillSetup setup =
      open_distill_setup(inputs.student, knowledge, inputs.pairs, data, inputs.dtype, inputs.device, out.seed());
  require_held_out(setup, inputs);
  const TrialContext context{search, quantize, setup, inputs.student, inputs.pairs, judging_tasks(search)};
  {
    Study study(out.file("study.db"), space, study_options(search, out.seed()));
    study.enqueue(known_point(space, train));
    for (const auto& file : search.first) study.enqueue(known_point(space, read_train_overlay(file, train)));
    const Agreement before = measure_agreement(setup.student, *setup.teacher, setup.data, setup.data.held_out);
    log_info("search: {} trials over {} held-out pairs; untrained: {} {:.4f}, top-1 agreement {:.1f} %", search.trials,
             setup.data.held_out.size(), quantity_name(before.quantity), before.kl, 100.0 * before.top1);
    out.record("untrained", nlohmann::json(to_json(before)));
    out.record("knowledge", setup.teacher_summary);
    out.record("quantity", quantity_name(setup.teacher->quantity()));
    run_trials(study, context, train, out.seed(), out.work_file(""));
    nlohmann::ordered_json replicates;
    const auto best = study.best();
    if (best && search.replicates > 0) {
      replicates = run_replicates(context, settings_at(study.params_of(*best), train), search.replicates, out);
    }
    write_results(study, search, train, replicates, out);
  }
  std::filesystem::remove(out.file("study.db.lock"));
  out.mark_volatile("study.db");  // it holds the times of the trials
}

int64_t join_search(const SearchInputs& inputs, const SearchConfig& search, const DistillConfig& train,
                    const DistillDataConfig& data, const QuantizeConfig& quantize, uint64_t seed, const fs::path& out) {
  check_config(search, "search");
  keep_freed_memory();
  const fs::path partial = out.string() + ".partial", study_file = partial / "study.db";
  if (!fs::exists(study_file)) {
    throw Error(ErrorKind::kInput, partial.string(), "holds no search that could be joined",
                "start one with the same command without --join, and wait for its first trial");
  }
  if (partial_key(partial) != stage_key_hash(search_key(inputs, search, train, data, quantize, seed))) {
    throw Error(ErrorKind::kInput, partial.string(), "is a search of other settings or inputs",
                "give the very flags of the search that is under way, and --join");
  }
  const fs::path kept = partial / "work" / "knowledge";  // where the first worker put a teacher's
  const DistillSetup setup =
      open_distill_setup(inputs.student, is_knowledge_cache(inputs.knowledge) ? inputs.knowledge : kept, inputs.pairs,
                         data, inputs.dtype, inputs.device, seed);
  require_held_out(setup, inputs);
  const TrialContext context{search, quantize, setup, inputs.student, inputs.pairs, judging_tasks(search)};
  StudyOptions options = study_options(search, seed);
  options.waits_for_others = false;  // the first worker does, and writes the results
  Study study(study_file, training_space(search, train), options);
  return run_trials(study, context, train, seed, partial / "work");
}

DistillConfig best_settings(const Artifact& search, const DistillConfig& train) {
  return with_settings(read_json_file(search.path / "best.json"), train);
}

}  // namespace potstill
