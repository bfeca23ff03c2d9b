// Runs benchmarks on a model and sums up: the numbers of lm-evaluation-harness.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "potstill/eval/eval_config.h"
#include "potstill/eval/metrics.h"
#include "potstill/eval/task.h"
#include "potstill/lm/language_model.h"

namespace potstill {

struct RowResult {
  int64_t doc_id = 0;  // 0-based, in its task
  Question question;
  std::vector<double> log_likelihoods;
  std::vector<bool> is_greedy;
  std::vector<double> metrics;  // in the order of the task's
};

struct TaskResult {
  std::string name;  // "arc_easy", "mmlu_astronomy"
  nlohmann::json version;
  int64_t num_rows = 0;  // in the file; rows.size() were scored
  int64_t num_fewshot = 0;
  std::vector<Metric> metrics;
  std::vector<RowResult> rows;
};

struct GroupResult {
  EvalTaskGroup group;  // children that were scored
  std::vector<Metric> metrics;
  int64_t num_rows = 0;
};

struct BenchmarkResults {
  std::vector<TaskResult> tasks;
  std::vector<GroupResult> groups;  // parents before children
};

struct BenchmarkOptions {
  // Scored rows are kept there as they come, and taken from it when the same model is asked the same rows again: a
  // killed run goes on inside a task. Empty: they are not kept.
  std::filesystem::path journal = {};
  const ChatTemplate* chat_template = nullptr;  // the model's; needed when the config applies it
  // Rows that are scored and kept together: 64 fill batches and lose little by a kill; a model that is run layer by
  // layer wants many.
  int64_t rows_at_a_time = 64;
  std::vector<EvalTask> tasks = {};  // what config.tasks names; empty: found by find_task
};

// Throws Error(kIo | kFormat | kInput | kUsage | kInterrupted).
BenchmarkResults run_benchmarks(LanguageModel& model, const EvalConfig& config, const BenchmarkOptions& options = {});

// sha256 as the harness makes it, of a row's JSON and of a text: runs are paired by it.
std::string doc_hash(const nlohmann::ordered_json& doc);

}  // namespace potstill
