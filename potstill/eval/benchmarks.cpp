#include "potstill/eval/benchmarks.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/base/interrupt.h"
#include "potstill/base/jsonl.h"
#include "potstill/base/log.h"
#include "potstill/base/sha256.h"
#include "potstill/eval/questions.h"

namespace potstill {
namespace {

// What the journal knows of a question: its hash names model, task and the very bytes that are asked.
std::string journal_key(const LanguageModel& model, const std::string& task, const Question& question) {
  nlohmann::json key = {model.name(), task, nlohmann::json::array()};
  for (const auto& request : question.requests()) key[2].push_back({request.context, request.continuation});
  return sha256_hex(to_json_line(key));
}

class ScoreJournal {
 public:
  explicit ScoreJournal(const std::filesystem::path& path) {
    if (path.empty()) return;
    journal_.emplace(path);  // cuts a torn last line off before it is read
    for (const auto& record : read_jsonl(path)) {
      const auto& value = record.value;
      if (!value.contains("key") || !value.contains("log_likelihoods") || !value.contains("is_greedy")) {
        throw Error(ErrorKind::kFormat, fmt::format("{}:{}", path.string(), record.line),
                    "is no line of an evaluation journal", "delete the file and evaluate again");
      }
      known_[value["key"]] = {value["log_likelihoods"], value["is_greedy"]};
    }
  }

  bool find(const std::string& key, RowResult& row) const {
    const auto found = known_.find(key);
    if (found == known_.end() || found->second.first.size() != row.question.choices.size()) return false;
    row.log_likelihoods = found->second.first;
    row.is_greedy = found->second.second;
    return true;
  }

  void keep(const std::string& key, const RowResult& row) {
    if (!journal_) return;
    journal_->append(
        to_json_line({{"key", key}, {"log_likelihoods", row.log_likelihoods}, {"is_greedy", row.is_greedy}}));
  }

 private:
  std::optional<Journal> journal_;
  std::map<std::string, std::pair<std::vector<double>, std::vector<bool>>> known_;
};

void score_rows(LanguageModel& model, const std::string& task, std::vector<RowResult>& rows, size_t at_a_time,
                ScoreJournal& journal, Progress& progress) {
  std::vector<std::pair<RowResult*, std::string>> open;
  for (auto& row : rows) {
    std::string key = journal_key(model, task, row.question);
    if (journal.find(key, row)) {
      progress.advance(1);
    } else {
      open.emplace_back(&row, std::move(key));
    }
  }
  for (size_t begin = 0; begin < open.size(); begin += at_a_time) {
    throw_if_interrupted();
    const auto chunk = std::span(open).subspan(begin, std::min(at_a_time, open.size() - begin));
    std::vector<ScoreRequest> requests;
    for (const auto& item : chunk) {
      for (auto& request : item.first->question.requests()) requests.push_back(std::move(request));
    }
    const auto scores = model.score(requests);
    size_t next = 0;
    for (const auto& item : chunk) {
      for (size_t i = 0; i < item.first->question.choices.size(); ++i, ++next) {
        item.first->log_likelihoods.push_back(scores.at(next).log_likelihood);
        item.first->is_greedy.push_back(scores.at(next).is_greedy);
      }
      journal.keep(item.second, *item.first);
    }
    progress.advance(static_cast<int64_t>(chunk.size()), task);
  }
}

void sum_up(const EvalTask& task, TaskResult& result) {
  for (size_t m = 0; m < task.metrics.size(); ++m) {
    std::vector<double> values;
    for (const auto& row : result.rows) values.push_back(row.metrics[m]);
    result.metrics.push_back(
        {.name = task.metrics[m], .value = mean(values), .standard_error = standard_error(values)});
  }
}

// Adds the groups that hold scored tasks: bottom up for the sums, top down for the reader.
std::vector<GroupResult> group_results(std::span<const TaskResult> tasks, std::span<const EvalTaskGroup> groups) {
  std::map<std::string, std::vector<WeightedMetric>> leaves;  // task or group -> its tasks
  for (const auto& task : tasks) {
    const Metric& acc = task.metrics.front();
    leaves[task.name] = {
        {.value = acc.value, .standard_error = acc.standard_error, .count = static_cast<int64_t>(task.rows.size())}};
  }
  std::vector<GroupResult> results;
  for (const auto& group : groups) {
    GroupResult result{.group = {.name = group.name, .alias = group.alias, .children = {}}, .metrics = {}};
    auto& parts = leaves[group.name];
    for (const auto& child : group.children) {
      const auto found = leaves.find(child);
      if (found == leaves.end() || found->second.empty()) continue;
      result.group.children.push_back(child);
      parts.insert(parts.end(), found->second.begin(), found->second.end());
    }
    if (parts.empty()) continue;
    result.metrics.push_back(pool("acc", parts));
    for (const auto& part : parts) result.num_rows += part.count;
    results.insert(results.begin(), std::move(result));
  }
  return results;
}

// The groups of "mmlu"; of a part of it, the group of that name, if it is one.
void add_groups(const std::string& task, std::span<const TaskResult> parts, std::vector<GroupResult>& groups) {
  auto known = mmlu_groups();
  if (task != "mmlu") std::erase_if(known, [&](const EvalTaskGroup& group) { return group.name != task; });
  std::ranges::move(group_results(parts, known), std::back_inserter(groups));
}

}  // namespace

std::string doc_hash(const nlohmann::ordered_json& doc) {
  return sha256_hex(doc.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

BenchmarkResults run_benchmarks(LanguageModel& model, const EvalConfig& config, const BenchmarkOptions& options) {
  if (config.tasks.empty()) throw Error(ErrorKind::kUsage, "--tasks", "names no benchmark");
  std::vector<EvalTask> tasks = options.tasks;
  if (tasks.empty()) {
    for (const auto& name : config.tasks) tasks.push_back(find_task(name));
  }
  ScoreJournal scores(options.journal);
  BenchmarkResults results;
  std::vector<std::pair<EvalTask, std::vector<TaskResult>>> asked;
  int64_t num_rows = 0;
  for (auto& task : tasks) {  // every row is read and checked before the first is scored
    const auto same = [&](const auto& other) { return other.first.name == task.name; };
    if (std::ranges::any_of(asked, same)) continue;
    auto questions = ask_questions(task, config, options.chat_template);
    for (const auto& part : questions) num_rows += static_cast<int64_t>(part.rows.size());
    asked.emplace_back(std::move(task), std::move(questions));
  }
  Progress progress("evaluate", num_rows, "rows");
  for (auto& [task, parts] : asked) {
    for (auto& part : parts) {
      score_rows(model, part.name, part.rows, static_cast<size_t>(options.rows_at_a_time), scores, progress);
      for (auto& row : part.rows) {
        for (const auto& metric : task.metrics) {
          row.metrics.push_back(row_metric(metric, row.question, row.log_likelihoods));
        }
      }
      sum_up(task, part);
    }
    if (task.subtask) add_groups(task.name, parts, results.groups);
    std::ranges::move(parts, std::back_inserter(results.tasks));
  }
  progress.finish();
  return results;
}

}  // namespace potstill
