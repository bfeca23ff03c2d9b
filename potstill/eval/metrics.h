// Metrics and standard errors as lm-evaluation-harness computes them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "potstill/eval/task.h"

namespace potstill {

// Index of the highest log-likelihood, the first of equals; per_character: divided by the choice's characters first.
int64_t predicted_choice(const Question& question, std::span<const double> log_likelihoods, bool per_character);

// 0 or 1. metric: "acc" or "acc_norm".
double row_metric(const std::string& metric, const Question& question, std::span<const double> log_likelihoods);

double mean(std::span<const double> values);
// Of the mean: sample standard deviation / sqrt(n); NaN below two values.
double standard_error(std::span<const double> values);

struct Metric {
  std::string name;  // "acc"
  double value = 0.0, standard_error = 0.0;
};

// A group's accuracy: each task counts by its rows; the standard error from the pooled variance.
struct WeightedMetric {
  double value, standard_error;
  int64_t count;
};
Metric pool(const std::string& name, std::span<const WeightedMetric> tasks);

}  // namespace potstill
