#include "potstill/eval/results_json.h"

#include <cmath>

#include "potstill/base/sha256.h"

namespace potstill {
namespace {

void add_metrics(nlohmann::ordered_json& object, std::span<const Metric> metrics) {
  for (const auto& metric : metrics) {  // "none" is the harness's name of the filter that changes nothing
    object[metric.name + ",none"] = metric.value;
    auto& error = object[metric.name + "_stderr,none"];
    if (std::isnan(metric.standard_error)) {
      error = "N/A";
    } else {
      error = metric.standard_error;
    }
  }
}

std::string text_of(const nlohmann::json& target) {
  return target.is_string() ? target.get<std::string>() : target.dump();
}

}  // namespace

nlohmann::ordered_json results_to_json(const BenchmarkResults& results) {
  const auto object = nlohmann::ordered_json::object();
  nlohmann::ordered_json json = {{"results", object}};
  if (!results.groups.empty()) json["groups"] = object;
  for (const char* key : {"group_subtasks", "versions", "n-shot", "higher_is_better", "n-samples"}) json[key] = object;
  for (const auto& group : results.groups) {
    nlohmann::ordered_json entry = {{"name", group.group.name}, {"alias", group.group.alias}};
    add_metrics(entry, group.metrics);
    entry["sample_len"] = group.num_rows;
    entry["sample_count"] = {{"acc,none", group.num_rows}};
    json["results"][group.group.name] = entry;
    json["groups"][group.group.name] = entry;
    json["group_subtasks"][group.group.name] = group.group.children;
    json["versions"][group.group.name] = 2;
  }
  for (const auto& task : results.tasks) {
    const std::string alias = task.name.starts_with("mmlu_") ? task.name.substr(5) : task.name;
    auto& entry = json["results"][task.name];
    entry = {{"name", task.name}, {"alias", alias}, {"sample_len", task.rows.size()}};
    add_metrics(entry, task.metrics);
    json["versions"][task.name] = task.version;
    json["n-shot"][task.name] = task.num_fewshot;
    for (const auto& metric : task.metrics) json["higher_is_better"][task.name][metric.name] = true;
    json["n-samples"][task.name] = {{"original", task.num_rows}, {"effective", task.rows.size()}};
  }
  return json;
}

nlohmann::ordered_json sample_to_json(const TaskResult& task, const RowResult& row) {
  const auto requests = row.question.requests();
  nlohmann::ordered_json arguments = nlohmann::ordered_json::object();
  nlohmann::ordered_json responses = nlohmann::ordered_json::array(), filtered = nlohmann::ordered_json::array();
  for (size_t i = 0; i < requests.size(); ++i) {
    arguments["gen_args_" + std::to_string(i)] = {{"arg_0", requests[i].context}, {"arg_1", requests[i].continuation}};
    const nlohmann::ordered_json response =
        nlohmann::ordered_json::array({std::to_string(row.log_likelihoods[i]), row.is_greedy[i] ? "True" : "False"});
    responses.push_back(nlohmann::ordered_json::array({response}));
    filtered.push_back(response);
  }
  nlohmann::ordered_json names = nlohmann::ordered_json::array();
  for (const auto& metric : task.metrics) names.push_back(metric.name);
  nlohmann::ordered_json json = {{"doc_id", row.doc_id},
                                 {"doc", row.question.doc},
                                 {"target", text_of(row.question.target)},
                                 {"arguments", arguments},
                                 {"resps", responses},
                                 {"filtered_resps", filtered},
                                 {"filter", "none"},
                                 {"metrics", names},
                                 {"doc_hash", doc_hash(row.question.doc)},
                                 {"prompt_hash", sha256_hex(requests.front().context)},
                                 {"target_hash", sha256_hex(text_of(row.question.target))}};
  for (size_t m = 0; m < task.metrics.size(); ++m) json[task.metrics[m].name] = row.metrics[m];
  return json;
}

}  // namespace potstill
