#include "potstill/eval/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "potstill/base/error.h"
#include "potstill/base/rng.h"
#include "potstill/eval/python_text.h"

namespace potstill {
namespace {

constexpr double kSignificant = 0.05;

struct Paired {
  const ScoredRow *first, *second;
};

std::vector<Paired> pair_rows(const ScoredRows& first, const ScoredRows& second) {
  std::vector<Paired> pairs;
  for (const auto& [key, row] : first) {
    const auto other = second.find(key);
    if (other != second.end() && other->second.choices.size() == row.choices.size()) {
      pairs.push_back({&row, &other->second});
    }
  }
  return pairs;
}

std::string metric_of(const ScoredRow& row, const std::string& wanted) {
  return row.metrics.contains(wanted) ? wanted : "acc";  // acc_norm is not defined for every task
}

const std::string& predicted(const ScoredRow& row, const std::string& metric) {
  size_t best = 0;
  double best_score = -std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < row.choices.size(); ++i) {
    double score = row.log_likelihoods[i];
    if (metric == "acc_norm") score /= static_cast<double>(num_characters(row.choices[i]));
    if (score > best_score) {
      best = i;
      best_score = score;
    }
  }
  return row.choices[best];
}

void add_scores(const Paired& pair, TaskComparison& task, int64_t& num_choices) {
  const auto& a = pair.first->log_likelihoods;
  const auto& b = pair.second->log_likelihoods;
  for (size_t i = 0; i < a.size(); ++i) task.mean_abs_delta_ll += std::abs(a[i] - b[i]);
  num_choices += static_cast<int64_t>(a.size());
  task.mean_kl += choice_kl(a, b);
}

TaskComparison compare_task(const std::string& name, const ScoredRows& first, const ScoredRows& second,
                            const CompareConfig& config, std::vector<double>& resampled) {
  const auto pairs = pair_rows(first, second);
  TaskComparison task{.task = name, .metric = {}, .interval = {}, .flips = {}};
  task.num_rows = static_cast<int64_t>(pairs.size());
  task.num_unpaired = static_cast<int64_t>(first.size() + second.size()) - 2 * task.num_rows;
  if (pairs.empty()) return task;
  task.metric = metric_of(*pairs.front().first, config.metric);
  std::vector<double> differences;
  int64_t num_choices = 0;
  for (const auto& pair : pairs) {
    const auto a = pair.first->metrics.find(task.metric), b = pair.second->metrics.find(task.metric);
    if (a == pair.first->metrics.end() || b == pair.second->metrics.end()) {
      throw Error(ErrorKind::kInput, name, fmt::format("a row has no metric '{}'", task.metric),
                  "--metric names one that both evaluations have: acc or acc_norm");
    }
    task.first += a->second;
    task.second += b->second;
    differences.push_back(b->second - a->second);
    if (pair.first->prompt_hash != pair.second->prompt_hash) ++task.num_other_prompts;
    add_scores(pair, task, num_choices);
    if (a->second == b->second) continue;
    const bool gained = b->second > a->second;
    ++(gained ? task.only_second : task.only_first);
    task.flips.push_back({.task = name,
                          .question = pair.first->question,
                          .first_choice = predicted(*pair.first, task.metric),
                          .second_choice = predicted(*pair.second, task.metric),
                          .gained = gained});
  }
  const auto n = static_cast<double>(pairs.size());
  task.first /= n;
  task.second /= n;
  task.difference = task.second - task.first;
  task.mean_abs_delta_ll /= static_cast<double>(num_choices);
  task.mean_kl /= n;
  task.mcnemar_p = mcnemar_exact(task.only_first, task.only_second);
  resampled = bootstrap_means(differences, config.resamples, derive_seed(config.seed, name));
  task.interval = percentile_interval(resampled);
  return task;
}

std::string points(double fraction) { return fmt::format("{:.2f}", 100.0 * fraction); }

std::string interval_text(const Interval& interval) {
  return fmt::format("95 % interval {:+.2f} to {:+.2f}", 100.0 * interval.low, 100.0 * interval.high);
}

}  // namespace

ModelComparison compare_models(const ScoredModel& first, const ScoredModel& second, const CompareConfig& config) {
  ModelComparison result{.first = first.label, .second = second.label, .tasks = {}, .interval = {}};
  std::vector<double> mean_of_tasks;
  for (const auto& [name, rows] : first.tasks) {
    const auto other = second.tasks.find(name);
    if (other == second.tasks.end()) continue;
    std::vector<double> resampled;
    auto task = compare_task(name, rows, other->second, config, resampled);
    if (task.num_rows == 0) continue;
    result.difference += task.difference;
    mean_of_tasks.resize(resampled.size());
    for (size_t i = 0; i < resampled.size(); ++i) mean_of_tasks[i] += resampled[i];
    result.tasks.push_back(std::move(task));
  }
  if (result.tasks.empty()) {
    throw Error(ErrorKind::kInput, fmt::format("{} and {}", first.label, second.label), "share no scored row",
                "evaluate both on the same tasks and the same data");
  }
  const auto num_tasks = static_cast<double>(result.tasks.size());
  result.difference /= num_tasks;
  for (auto& value : mean_of_tasks) value /= num_tasks;
  result.interval = percentile_interval(std::move(mean_of_tasks));
  std::vector<double> p_values;
  for (const auto& task : result.tasks) p_values.push_back(task.mcnemar_p);
  const auto corrected = holm(p_values);
  for (size_t i = 0; i < corrected.size(); ++i) result.tasks[i].holm_p = corrected[i];
  return result;
}

std::string verdict(const TaskComparison& task, const std::string& first, const std::string& second) {
  const std::string where = fmt::format("{}: ", task.task);
  if (task.holm_p >= kSignificant) {
    return fmt::format("{}no difference shown at n = {} ({})", where, task.num_rows, interval_text(task.interval));
  }
  return fmt::format("{}{} is better than {} by {} points at n = {} ({}, p = {:.2g})", where,
                     task.difference > 0 ? second : first, task.difference > 0 ? first : second,
                     points(std::abs(task.difference)), task.num_rows, interval_text(task.interval), task.holm_p);
}

std::string verdict(const ModelComparison& comparison) {
  int64_t rows = 0;
  for (const auto& task : comparison.tasks) rows += task.num_rows;
  const auto& interval = comparison.interval;
  const std::string over = comparison.tasks.size() == 1
                               ? "on the one task"
                               : fmt::format("on the mean of {} tasks", comparison.tasks.size());
  if (interval.low <= 0.0 && interval.high >= 0.0) {
    return fmt::format("{} against {} {}: no difference shown at n = {} ({})", comparison.second, comparison.first,
                       over, rows, interval_text(interval));
  }
  return fmt::format("{} is {} than {} {} by {} points at n = {} ({})", comparison.second,
                     comparison.difference > 0 ? "better" : "worse", comparison.first, over,
                     points(std::abs(comparison.difference)), rows, interval_text(interval));
}

nlohmann::ordered_json comparison_to_json(const ModelComparison& comparison) {
  nlohmann::ordered_json json = {
      {"first", comparison.first},           {"second", comparison.second},
      {"difference", comparison.difference}, {"interval_95", {comparison.interval.low, comparison.interval.high}},
      {"verdict", verdict(comparison)},      {"tasks", nlohmann::ordered_json::object()}};
  for (const auto& task : comparison.tasks) {
    nlohmann::ordered_json flips = nlohmann::ordered_json::array();
    for (const auto& flip : task.flips) {
      flips.push_back({{"question", flip.question},
                       {"first", flip.first_choice},
                       {"second", flip.second_choice},
                       {"gained", flip.gained}});
    }
    auto& entry = json["tasks"][task.task];
    entry = {{"metric", task.metric},
             {"rows", task.num_rows},
             {"unpaired_rows", task.num_unpaired},
             {"rows_with_other_prompts", task.num_other_prompts},
             {"first", task.first},
             {"second", task.second},
             {"difference", task.difference},
             {"interval_95", {task.interval.low, task.interval.high}},
             {"only_first_right", task.only_first},
             {"only_second_right", task.only_second},
             {"mcnemar_p", task.mcnemar_p},
             {"holm_p", task.holm_p},
             {"mean_abs_delta_log_likelihood", task.mean_abs_delta_ll},
             {"mean_choice_kl", task.mean_kl},
             {"verdict", verdict(task, comparison.first, comparison.second)},
             {"flips", flips}};
    if (task.first > 0.0) entry["accuracy_lost_relative"] = (task.first - task.second) / task.first;
  }
  return json;
}

}  // namespace potstill
