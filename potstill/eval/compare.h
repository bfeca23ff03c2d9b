// Two models on the same rows: what differs, and whether the difference is more than chance.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "potstill/eval/paired_statistics.h"
#include "potstill/eval/scored_model.h"

namespace potstill {

struct CompareConfig {
  std::string metric = "acc";
  int64_t resamples = 10000;
  int64_t flips = 20;
  uint64_t seed = 0;
};

struct Flip {
  std::string task, question, first_choice, second_choice;
  bool gained = false;  // wrong before, right now; else the reverse
};

struct TaskComparison {
  std::string task, metric;
  int64_t num_rows = 0;                     // that both have
  int64_t num_unpaired = 0;                 // that one has
  int64_t num_other_prompts = 0;            // asked otherwise: another prompt for the same row
  double first = 0.0, second = 0.0;         // means of the metric
  double difference = 0.0;                  // second - first
  Interval interval;                        // 95 %, paired bootstrap
  int64_t only_first = 0, only_second = 0;  // right in one alone
  double mcnemar_p = 1.0, holm_p = 1.0;
  double mean_abs_delta_ll = 0.0;  // over all choices, nats
  double mean_kl = 0.0;            // of the choices' distributions, KL(first || second), nats
  std::vector<Flip> flips;
};

struct ModelComparison {
  std::string first, second;
  std::vector<TaskComparison> tasks;
  double difference = 0.0;  // mean over the tasks
  Interval interval;        // of it
};

// Throws Error(kInput) when the two share no row of any task, or no row has the metric.
ModelComparison compare_models(const ScoredModel& first, const ScoredModel& second, const CompareConfig& config);

// "no difference shown at n = 500", or which is better and by how much: from the test corrected over the tasks.
std::string verdict(const TaskComparison& task, const std::string& first, const std::string& second);
std::string verdict(const ModelComparison& comparison);

nlohmann::ordered_json comparison_to_json(const ModelComparison& comparison);

}  // namespace potstill
