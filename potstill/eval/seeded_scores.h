// What several training seeds give on the same rows: means, differences and ratios whose intervals know that both the
// seeds and the rows were drawn.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "potstill/eval/paired_statistics.h"

namespace potstill {

// Task -> [seed][row]. Every seed has the same rows; every compared set the same tasks, seeds and rows in one order.
using SeededScores = std::map<std::string, std::vector<std::vector<double>>>;

SeededScores minus(const SeededScores& a, const SeededScores& b);  // seed by seed, row by row

// A mean over tasks of means over seeds and rows. Two-way random effects: what seeds scatter and what rows scatter add
// up; degrees of freedom after Satterthwaite (1946).
struct SeededMean {
  double mean = 0;
  double variance = 0;  // of the mean
  double freedom = 0;   // infinite when only the rows scatter and are many; 0 when nothing can be said
  Interval interval;    // 95 %; NaN with a single seed, whose scatter is unknown
  int64_t seeds = 0, rows = 0;
};
SeededMean seeded_mean(const SeededScores& scores);

// mean(a) / mean(b) with its 95 % interval by Fieller's theorem (1954). No interval when mean(b) is not far enough from
// 0 for one to end.
struct SeededRatio {
  double ratio = 0;
  std::optional<Interval> interval;
};
SeededRatio seeded_ratio(const SeededScores& a, const SeededScores& b);

}  // namespace potstill
