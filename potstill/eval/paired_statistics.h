// Statistics of two models on the same rows.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace potstill {

struct Interval {
  double low = 0.0, high = 0.0;
};

// Means of `resamples` samples drawn from the values with replacement, in the order drawn; the same for the same seed.
std::vector<double> bootstrap_means(std::span<const double> values, int64_t resamples, uint64_t seed);

// The percentile interval that holds `coverage` of the values, by linear interpolation (numpy's default quantile).
Interval percentile_interval(std::vector<double> values, double coverage = 0.95);

// Exact two-sided McNemar test: rows that only the first and that only the second got right. 1 when there are none.
double mcnemar_exact(int64_t only_first, int64_t only_second);

// Holm's step-down correction: p-values adjusted for their number, in the order given.    Holm, Scand. J. Stat. 6, 1979
std::vector<double> holm(std::span<const double> p_values);

// KL(p || q) in nats of the distributions softmax(first) and softmax(second) over a row's choices.
double choice_kl(std::span<const double> first, std::span<const double> second);

}  // namespace potstill
