#include "potstill/eval/metrics.h"

#include <cmath>
#include <limits>

#include "potstill/base/check.h"
#include "potstill/eval/python_text.h"

namespace potstill {

int64_t predicted_choice(const Question& question, std::span<const double> log_likelihoods, bool per_character) {
  POTSTILL_CHECK(log_likelihoods.size() == question.choices.size() && !log_likelihoods.empty());
  size_t best = 0;
  double best_score = -std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < log_likelihoods.size(); ++i) {
    double score = log_likelihoods[i];
    if (per_character) score /= static_cast<double>(num_characters(question.choices[i]));  // "" gives -inf: never best
    if (score > best_score) {
      best = i;
      best_score = score;
    }
  }
  return static_cast<int64_t>(best);
}

double row_metric(const std::string& metric, const Question& question, std::span<const double> log_likelihoods) {
  POTSTILL_CHECK(metric == "acc" || metric == "acc_norm");
  return predicted_choice(question, log_likelihoods, metric == "acc_norm") == question.gold ? 1.0 : 0.0;
}

double mean(std::span<const double> values) {
  double sum = 0.0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

double standard_error(std::span<const double> values) {
  const auto n = static_cast<double>(values.size());
  if (values.size() < 2) return std::numeric_limits<double>::quiet_NaN();
  const double center = mean(values);
  double squares = 0.0;
  for (const double value : values) squares += (value - center) * (value - center);
  return std::sqrt(squares / (n - 1.0)) / std::sqrt(n);
}

Metric pool(const std::string& name, std::span<const WeightedMetric> tasks) {
  double rows = 0.0, sum = 0.0, squares = 0.0;
  for (const auto& task : tasks) {
    const auto n = static_cast<double>(task.count);
    rows += n;
    sum += n * task.value;
    squares += (n - 1.0) * task.standard_error * task.standard_error * n;
  }
  const double variance = squares / (rows - static_cast<double>(tasks.size()));
  return {.name = name, .value = sum / rows, .standard_error = std::sqrt(variance / rows)};
}

}  // namespace potstill
