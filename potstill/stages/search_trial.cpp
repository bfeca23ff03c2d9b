#include "potstill/stages/search_trial.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <string>

#include "potstill/base/log.h"
#include "potstill/distill/batches.h"
#include "potstill/distill/kl_loss.h"
#include "potstill/distill/train.h"
#include "potstill/eval/benchmarks.h"
#include "potstill/nn/loaded_model.h"
#include "potstill/stages/deployed_student.h"
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
    const auto hidden = student.hidden_states(batch.packed, false, batch.rows);
    sums += teacher.loss(hidden, student.lm_head, batch.labels, batch.positions, options, 1.0, nullptr);
  }
  return sums.loss / static_cast<double>(sums.tokens);
}

// What is measured on the way and judged by at the end where nothing else is asked for.
double held_out_value(const std::string& objective, const Agreement& held_out) {
  return objective == "agreement" ? 1.0 - held_out.top1 : held_out.kl;
}

// Share of wrong answers, the mean over the tasks.
double task_error(const TrialContext& context, const Transformer& student, nlohmann::json& accuracy) {
  const at::NoGradGuard no_grad;
  const auto model = make_loaded_model(context.setup.package, student, "trial");
  EvalConfig config;
  config.tasks = context.search.accuracy_tasks;
  config.data = context.search.accuracy_data;
  config.limit = context.search.accuracy_limit;
  const auto results = run_benchmarks(*model, config, {.tasks = context.accuracy_tasks});
  // MMLU's subjects count as one task.
  double wrong = 0, num_tasks = 0;
  const auto add = [&](const std::string& name, double acc) {
    accuracy[name] = acc;
    wrong += 1 - acc;
    num_tasks += 1;
  };
  for (const auto& group : results.groups) {
    if (group.group.name == "mmlu") add("mmlu", group.metrics.front().value);
  }
  for (const auto& task : results.tasks) {
    if (!task.name.starts_with("mmlu_")) add(task.name, task.metrics.front().value);
  }
  return wrong / num_tasks;
}

}  // namespace

TrialOutcome run_training(const TrialContext& context, const DistillConfig& settings, uint64_t seed,
                          const std::filesystem::path& folder, const std::function<bool(int64_t, double)>& goes_on) {
  const std::string& objective = context.search.objective;
  const DistillSetup& setup = context.setup;
  TrainHooks hooks;
  hooks.on_eval = [&](int64_t step, const Agreement& held_out) {
    return !goes_on || goes_on(step, held_out_value(objective, held_out));
  };
  const TrainResult result = train_lora(setup.student, *setup.teacher, setup.data, settings, seed, hooks, folder);
  TrialOutcome outcome{.held_out = to_json(result.held_out),
                       .accuracy = nlohmann::json::object(),
                       .tokens_per_s = result.tokens_per_s,
                       .stopped = result.stopped_early};
  if (outcome.stopped) return outcome;
  if (objective == "eval_loss") {
    outcome.value = held_out_loss(result.student, *setup.teacher, setup.data, settings);
  } else if (objective == "post-quant-kl") {
    const Agreement quantized = measure_quantized(result.adapter, context.student, setup, context.pairs,
                                                  context.quantize, folder / "quantized", seed);
    outcome.held_out["quantized"] = to_json(quantized);
    outcome.value = quantized.kl;
  } else if (objective == "accuracy") {
    outcome.value = task_error(context, result.student, outcome.accuracy);
  } else {
    outcome.value = held_out_value(objective, result.held_out);
  }
  return outcome;
}

double run_trial(Trial& trial, const TrialContext& context, DistillConfig settings, const Space& space, uint64_t seed,
                 const std::filesystem::path& folder) {
  const auto train_pairs = static_cast<int64_t>(context.setup.data.train.size());
  const bool prunes = context.search.pruning == "median";
  settings.on_divergence = "stop";  // a trial is judged at the rate that it names
  if (prunes) settings.eval_every = std::max<int64_t>(1, num_train_steps(settings, train_pairs) / 4);
  const auto outcome = run_training(context, settings, seed, folder, [&](int64_t step, double value) {
    if (context.search.objective != "eval_loss") trial.report(step, value);
    const bool last = step == num_train_steps(settings, train_pairs);
    return last || !prunes || !trial.is_behind_median();
  });
  trial.set_user_attribute("held_out", outcome.held_out);
  if (!outcome.accuracy.empty()) trial.set_user_attribute("accuracy", outcome.accuracy);
  trial.set_user_attribute("settings", nlohmann::json(searched_settings(settings, space)));
  trial.set_user_attribute("tokens_per_s", outcome.tokens_per_s);
  if (outcome.stopped) throw TrialPruned{};
  return outcome.value;
}

}  // namespace potstill
