// What an evaluation left on the disk about a model: its results file and the samples files beside it.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace potstill {

struct ScoredRow {
  std::string question;              // the context of the first choice
  std::vector<std::string> choices;  // as scored, without the space before them
  std::vector<double> log_likelihoods;
  std::string prompt_hash;
  std::map<std::string, double> metrics;  // "acc" -> 0 or 1
};

// Rows of a task by their hash; the n-th of equal rows has "#n" behind it.
using ScoredRows = std::map<std::string, ScoredRow>;

struct ScoredModel {
  std::string label;
  std::optional<double> size_bytes, peak_memory_bytes, ms_per_token;
  std::map<std::string, ScoredRows> tasks;  // MMLU's subjects are one task, "mmlu"
};

// Reads a results file: of `potstill evaluate` (one model or several), of a run's evaluate stage, or of
// lm-evaluation-harness. Every row comes from the samples files that it names, or for the harness's
// results_<date>.json from samples_<task>_<date>.jsonl beside it. Throws Error(kIo | kFormat | kInput).
std::vector<ScoredModel> read_scored_models(const std::filesystem::path& results);

}  // namespace potstill
