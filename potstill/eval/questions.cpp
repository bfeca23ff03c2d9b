#include "potstill/eval/questions.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "potstill/base/error.h"
#include "potstill/eval/few_shot.h"

namespace potstill {
namespace {

std::vector<Row> rows_at(const std::filesystem::path& path, const EvalTask& task, const char* what) {
  if (!std::filesystem::exists(path)) {
    throw Error(ErrorKind::kIo, path.string(), fmt::format("the {} of '{}' are not there", what, task.name),
                "--data names the folder that holds <task>/<split>.jsonl");
  }
  return read_rows(path);
}

std::string task_of(const EvalTask& task, const Row& row) { return task.subtask ? task.subtask(row) : task.name; }

// Examples of each task of a group, or of the one task.
std::map<std::string, std::vector<Question>> example_pools(const EvalTask& task, const EvalConfig& config) {
  std::map<std::string, std::vector<Question>> pools;
  for (const auto& row : rows_at(task.fewshot_path(config.data), task, "few-shot rows")) {
    pools[task_of(task, row)].push_back(task.ask(row));
  }
  return pools;
}

}  // namespace

std::vector<TaskResult> ask_questions(const EvalTask& task, const EvalConfig& config,
                                      const ChatTemplate* chat_template) {
  PromptStyle style{.chat_template = nullptr, .fewshot_as_multiturn = config.fewshot_as_multiturn};
  if (config.apply_chat_template) {
    if (chat_template == nullptr) {
      throw Error(ErrorKind::kUsage, "--apply-chat-template", "the model has no chat template", "leave the flag out");
    }
    style.chat_template = chat_template;
  }
  std::map<std::string, TaskResult> by_name;
  for (const auto& row : rows_at(task.rows_path(config.data), task, "rows")) {
    const std::string name = task_of(task, row);
    if (!task.only_subtasks.empty() && std::ranges::find(task.only_subtasks, name) == task.only_subtasks.end())
      continue;
    TaskResult& result = by_name[name];
    result.name = name;
    result.version = task.version;
    result.num_fewshot = config.num_fewshot;
    const int64_t doc_id = result.num_rows++;
    if (config.limit > 0 && doc_id >= config.limit) continue;
    result.rows.push_back(
        {.doc_id = doc_id, .question = task.ask(row), .log_likelihoods = {}, .is_greedy = {}, .metrics = {}});
  }
  std::map<std::string, std::vector<Question>> pools;
  if (config.num_fewshot > 0) pools = example_pools(task, config);
  if (by_name.empty()) {
    throw Error(ErrorKind::kInput, task.rows_path(config.data).string(), fmt::format("holds no rows of {}", task.name));
  }
  std::vector<TaskResult> results;
  for (auto& [name, result] : by_name) {
    if (config.num_fewshot > 0) {
      FewShotSampler sampler(task, std::move(pools[name]), config.num_fewshot);
      for (auto& row : result.rows) add_prompt(row.question, sampler.draw(row.question), style);
    } else if (style.chat_template != nullptr) {
      for (auto& row : result.rows) add_prompt(row.question, {}, style);
    }
    results.push_back(std::move(result));
  }
  return results;
}

}  // namespace potstill
