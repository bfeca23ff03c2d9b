#include "potstill/eval/seeded_scores.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "potstill/base/check.h"
#include "potstill/eval/student_t.h"

namespace potstill {
namespace {

double mean_of(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

// Sample covariance of two series.
double covariance(const std::vector<double>& a, const std::vector<double>& b) {
  const double mean_a = mean_of(a), mean_b = mean_of(b);
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (a[i] - mean_a) * (b[i] - mean_b);
  return sum / static_cast<double>(a.size() - 1);
}

size_t num_seeds(const SeededScores& scores) { return scores.begin()->second.size(); }

// Of each seed the mean over tasks.
std::vector<double> seed_means(const SeededScores& scores) {
  std::vector<double> means(num_seeds(scores), 0.0);
  for (const auto& [task, seeds] : scores) {
    for (size_t s = 0; s < seeds.size(); ++s) means[s] += mean_of(seeds[s]) / static_cast<double>(scores.size());
  }
  return means;
}

std::vector<double> row_means(const std::vector<std::vector<double>>& seeds) {
  std::vector<double> means(seeds.front().size(), 0.0);
  for (const auto& rows : seeds) {
    for (size_t r = 0; r < rows.size(); ++r) means[r] += rows[r] / static_cast<double>(seeds.size());
  }
  return means;
}

// Covariance of two means: the part of the seeds and the part of the rows.
struct Parts {
  double seeds = 0, rows = 0;
  double rows_squared_by_freedom = 0;  // Σ (row part of a task)² / (rows - 1), for Satterthwaite
  double sum() const { return seeds + rows; }
};

Parts covariance_of_means(const SeededScores& a, const SeededScores& b) {
  const auto n = static_cast<double>(num_seeds(a)), tasks = static_cast<double>(a.size());
  Parts parts;
  if (num_seeds(a) > 1) parts.seeds = covariance(seed_means(a), seed_means(b)) / n;
  for (const auto& [task, seeds] : a) {
    const auto rows = row_means(seeds), others = row_means(b.at(task));
    if (rows.size() < 2) continue;
    const auto count = static_cast<double>(rows.size());
    const double part = covariance(rows, others) / count / (tasks * tasks);
    parts.rows += part;
    parts.rows_squared_by_freedom += part * part / (count - 1);
  }
  return parts;
}

double satterthwaite(const Parts& parts, size_t seeds) {
  double squares = parts.rows_squared_by_freedom;
  if (seeds > 1) squares += parts.seeds * parts.seeds / static_cast<double>(seeds - 1);
  if (!(squares > 0)) return std::numeric_limits<double>::infinity();
  return parts.sum() * parts.sum() / squares;
}

double quantile(double freedom) { return student_t_quantile(0.975, std::min(freedom, 1e6)); }

void check_alike(const SeededScores& a, const SeededScores& b) {
  POTSTILL_CHECK(a.size() == b.size() && !a.empty());
  for (const auto& [task, seeds] : a) {
    const auto other = b.find(task);
    POTSTILL_CHECK(other != b.end() && other->second.size() == seeds.size() && !seeds.empty());
    for (size_t s = 0; s < seeds.size(); ++s) POTSTILL_CHECK(seeds[s].size() == other->second[s].size());
  }
}

}  // namespace

SeededScores minus(const SeededScores& a, const SeededScores& b) {
  check_alike(a, b);
  SeededScores difference = a;
  for (auto& [task, seeds] : difference) {
    for (size_t s = 0; s < seeds.size(); ++s) {
      for (size_t r = 0; r < seeds[s].size(); ++r) seeds[s][r] -= b.at(task)[s][r];
    }
  }
  return difference;
}

SeededMean seeded_mean(const SeededScores& scores) {
  check_alike(scores, scores);
  const Parts parts = covariance_of_means(scores, scores);
  SeededMean result{.mean = mean_of(seed_means(scores)),
                    .variance = parts.sum(),
                    .freedom = satterthwaite(parts, num_seeds(scores)),
                    .interval = {},
                    .seeds = static_cast<int64_t>(num_seeds(scores))};
  for (const auto& [task, seeds] : scores) result.rows += static_cast<int64_t>(seeds.front().size());
  double half = std::numeric_limits<double>::quiet_NaN();
  if (result.seeds > 1) half = result.variance > 0 ? quantile(result.freedom) * std::sqrt(result.variance) : 0.0;
  result.interval = {result.mean - half, result.mean + half};
  return result;
}

SeededRatio seeded_ratio(const SeededScores& a, const SeededScores& b) {
  check_alike(a, b);
  const SeededMean of_a = seeded_mean(a), of_b = seeded_mean(b);
  SeededRatio result{.ratio = of_a.mean / of_b.mean, .interval = {}};
  if (of_a.seeds < 2) return result;
  const double t = quantile(std::min(of_a.freedom, of_b.freedom)), t2 = t * t;
  const double cross = covariance_of_means(a, b).sum();
  // (a - θ b)² <= t² (Vaa - 2 θ Vab + θ² Vbb)
  const double square = of_b.mean * of_b.mean - t2 * of_b.variance;
  const double linear = of_a.mean * of_b.mean - t2 * cross;
  const double constant = of_a.mean * of_a.mean - t2 * of_a.variance;
  const double root = linear * linear - square * constant;
  if (square <= 0 || root < 0) return result;
  result.interval = Interval{(linear - std::sqrt(root)) / square, (linear + std::sqrt(root)) / square};
  return result;
}

}  // namespace potstill
