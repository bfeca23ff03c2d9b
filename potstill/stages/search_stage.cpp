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
#include "potstill/distill/batches.h"
#include "potstill/distill/kl_loss.h"
#include "potstill/distill/setup.h"
#include "potstill/distill/train.h"
#include "potstill/search/importance.h"
#include "potstill/search/study.h"
#include "potstill/stages/deployed_student.h"
#include "potstill/stages/knowledge.h"
#include "potstill/stages/search_space.h"

namespace potstill {
namespace {

// The loss of [train] on the held-out pairs, at the trial's own alpha and temperature.
double held_out_loss(const Transformer& student, const TeacherSignal& teacher, const DistillData& data,
                     const DistillConfig& settings) {
  const at::NoGradGuard no_grad;
  const auto offsets = answer_position_offsets(data);
  const KlLossOptions options{.divergence = parse_divergence(settings.divergence),
                              .jsd_beta = settings.jsd_beta,
                              .alpha = settings.alpha,
                              .temperature = settings.temperature,
                              .vocab_limit = std::min(teacher.vocab_limit(), student.lm_head.size(0)),
                              .rows = settings.loss_rows};
  KlLossSums sums;
  for (const auto& batch :
       make_answer_batches(data, offsets, data.held_out, settings.tokens_per_batch, student.device())) {
    const auto hidden = student.hidden_states(batch.packed).index_select(0, batch.rows);
    sums += teacher.loss(hidden, student.lm_head, batch.labels, batch.positions, options, 1.0, nullptr);
  }
  return sums.loss / static_cast<double>(sums.tokens);
}

// Mean and half the width of its 95 % interval; NaN for the width of a single value.
std::pair<double, double> mean_and_interval(const std::vector<double>& values) {
  static constexpr double kQuantile[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228};
  const auto n = static_cast<double>(values.size());
  double mean = 0, squares = 0;
  for (const double value : values) mean += value / n;
  for (const double value : values) squares += (value - mean) * (value - mean);
  if (values.size() < 2) return {mean, std::numeric_limits<double>::quiet_NaN()};
  const size_t freedom = values.size() - 1;
  const double quantile = freedom <= 10 ? kQuantile[freedom - 1] : 1.96 + 2.4 / static_cast<double>(freedom);
  return {mean, quantile * std::sqrt(squares / (n - 1) / n)};
}

double objective_of(const std::string& objective, const Agreement& held_out) {
  return objective == "agreement" ? 1.0 - held_out.top1 : held_out.kl;
}

// What trials and replicates share: one loaded student, the teacher's knowledge, the settings that are not searched.
class TrialRunner {
 public:
  TrialRunner(const SearchInputs& inputs, const SearchConfig& search, const QuantizeConfig& quantize,
              const DistillSetup& setup)
      : inputs_(inputs), search_(search), quantize_(quantize), setup_(setup) {}

  struct Outcome {
    double value = 0;
    nlohmann::json held_out;  // the trained student's, and with post-quant-kl the quantized one's
    double tokens_per_s = 0;
    bool stopped = false;
  };
  // `goes_on` is asked at each measurement on the way; `folder` holds checkpoints.
  Outcome run(const DistillConfig& settings, uint64_t seed, const std::filesystem::path& folder,
              const std::function<bool(int64_t, double)>& goes_on = {}) const {
    TrainHooks hooks;
    hooks.on_eval = [&](int64_t step, const Agreement& held_out) {
      return !goes_on || goes_on(step, objective_of(search_.objective, held_out));
    };
    const TrainResult result = train_lora(setup_.student, *setup_.teacher, setup_.data, settings, seed, hooks, folder);
    Outcome outcome{
        .held_out = to_json(result.held_out), .tokens_per_s = result.tokens_per_s, .stopped = result.stopped_early};
    if (outcome.stopped) return outcome;
    if (search_.objective == "eval_loss") {
      outcome.value = held_out_loss(result.student, *setup_.teacher, setup_.data, settings);
    } else if (search_.objective == "post-quant-kl") {
      const Agreement quantized = measure_quantized(result.adapter, inputs_.student, setup_, inputs_.pairs, quantize_,
                                                    folder / "quantized", seed);
      outcome.held_out["quantized"] = to_json(quantized);
      outcome.value = quantized.kl;
    } else {
      outcome.value = objective_of(search_.objective, result.held_out);
    }
    return outcome;
  }

 private:
  const SearchInputs& inputs_;
  const SearchConfig& search_;
  const QuantizeConfig& quantize_;
  const DistillSetup& setup_;
};

double run_trial(Trial& trial, const TrialRunner& runner, const SearchConfig& search, DistillConfig settings,
                 int64_t train_pairs, uint64_t seed, const std::filesystem::path& folder) {
  const bool prunes = search.pruning == "median";
  settings.on_divergence = "stop";  // a trial is judged at the rate that it names
  if (prunes) settings.eval_every = std::max<int64_t>(1, num_train_steps(settings, train_pairs) / 4);
  const auto outcome = runner.run(settings, seed, folder, [&](int64_t step, double value) {
    if (search.objective != "eval_loss") trial.report(step, value);
    const bool last = step == num_train_steps(settings, train_pairs);
    return last || !prunes || !trial.is_behind_median();
  });
  trial.set_user_attribute("held_out", outcome.held_out);
  trial.set_user_attribute("settings", nlohmann::json(searched_settings(settings)));
  trial.set_user_attribute("tokens_per_s", outcome.tokens_per_s);
  if (outcome.stopped) throw TrialPruned{};
  return outcome.value;
}

// The best settings again under other seeds: how much of their lead was luck. Student's t for the 95 % interval.
nlohmann::ordered_json run_replicates(const TrialRunner& runner, const DistillConfig& settings, int64_t count,
                                      ArtifactWriter& out) {
  std::vector<double> values;
  Progress progress("replicates", count, "runs");
  for (int64_t i = 0; i < count; ++i) {
    const auto kept = out.work_file(fmt::format("replicate-{}.json", i));
    if (!std::filesystem::exists(kept)) {
      const auto folder = out.work_file(fmt::format("replicate-{}", i));
      const uint64_t seed = derive_seed(out.seed(), fmt::format("search/replicate/{}", i));
      const auto outcome = runner.run(settings, seed, folder);
      std::filesystem::remove_all(folder);
      write_file_atomically(kept, nlohmann::json{{"value", outcome.value}}.dump());
    }
    values.push_back(read_json_file(kept).at("value").get<double>());
    progress.advance(1, fmt::format("{:.4f}", values.back()));
  }
  progress.finish();
  const auto [mean, half_width] = mean_and_interval(values);
  return {{"values", values}, {"mean", mean}, {"interval95", {mean - half_width, mean + half_width}}};
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
  nlohmann::ordered_json summary = {{"trial", best->number},
                                    {"objective", search.objective},
                                    {"value", best->value},
                                    {"held_out", best->user_attributes.at("held_out")},
                                    {"train", searched_settings(settings_at(study.params_of(*best), train))}};
  const std::vector<PastTrial> past(trials.begin(), trials.end());
  if (const auto importance = parameter_importance(study.space(), past); !importance.empty()) {
    summary["importance"] = importance;
  }
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
  return {.stage = "search",
          .config = config,
          .inputs = {{"student", inputs.student}, {"knowledge", inputs.knowledge}, {"pairs", inputs.pairs}},
          .seed = seed};
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
  if (setup.data.held_out.empty()) {
    throw Error(ErrorKind::kInput, inputs.pairs.string(), "holds out no pair to judge trials by",
                "set held_out above 0, and have more pairs");
  }
  const auto lock = std::filesystem::path(out.file("study.db").string() + ".lock");
  {
    Study study(
        out.file("study.db"), space,
        {.sampler = search.sampler_name(), .n_startup_trials = search.num_startup_trials(), .seed = out.seed()});
    study.enqueue(known_point(space, train));
    const Agreement before = measure_agreement(setup.student, *setup.teacher, setup.data, setup.data.held_out);
    log_info("search: {} trials over {} held-out pairs; untrained: {} {:.4f}, top-1 agreement {:.1f} %", search.trials,
             setup.data.held_out.size(), quantity_name(before.quantity), before.kl, 100.0 * before.top1);
    out.record("untrained", nlohmann::json(to_json(before)));
    out.record("knowledge", setup.teacher_summary);
    out.record("quantity", quantity_name(setup.teacher->quantity()));
    Progress progress("search", search.trials, "trials");
    for (const auto& trial : study.trials()) progress.advance(trial.state == TrialState::kComplete ? 1 : 0);
    const TrialRunner runner(inputs, search, quantize, setup);
    const auto train_pairs = static_cast<int64_t>(setup.data.train.size());
    study.minimise(
        [&](Trial& trial) {
          const auto settings = settings_at(trial.params(), train);
          const auto checkpoint = out.work_file(fmt::format("trial-{}", trial.number()));
          log_debug("search: trial {}: {}", trial.number(), searched_settings(settings).dump());
          const double value = run_trial(trial, runner, search, settings, train_pairs, out.seed(), checkpoint);
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
    nlohmann::ordered_json replicates;
    const auto best = study.best();
    if (best && search.replicates > 0) {
      replicates = run_replicates(runner, settings_at(study.params_of(*best), train), search.replicates, out);
    }
    write_results(study, search, train, replicates, out);
  }
  std::filesystem::remove(lock);
  out.mark_volatile("study.db");  // it holds the times of the trials
}

DistillConfig best_settings(const Artifact& search, const DistillConfig& train) {
  return with_settings(read_json_file(search.path / "best.json"), train);
}

}  // namespace potstill
