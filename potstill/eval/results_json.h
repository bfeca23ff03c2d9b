// Results and samples in lm-evaluation-harness's layout and spelling, so that its readers read ours.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "potstill/eval/benchmarks.h"

namespace potstill {

// results, groups, group_subtasks, versions, n-shot, higher_is_better, n-samples.
nlohmann::ordered_json results_to_json(const BenchmarkResults& results);

// The line of samples_<task>.jsonl for one row.
nlohmann::ordered_json sample_to_json(const TaskResult& task, const RowResult& row);

}  // namespace potstill
