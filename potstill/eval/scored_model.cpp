#include "potstill/eval/scored_model.h"

#include <fmt/format.h>

#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

[[noreturn]] void refuse_sample(const fs::path& path, int64_t line, const std::string& what) {
  throw Error(ErrorKind::kFormat, fmt::format("{}:{}", path.string(), line), what,
              "samples are the lines that `potstill evaluate --log-samples` or lm-evaluation-harness writes");
}

double number_of(const Json& value, const fs::path& path, int64_t line) {
  if (value.is_number()) return value.get<double>();
  if (value.is_string()) {  // the harness logs responses as texts
    try {
      return std::stod(value.get<std::string>());
    } catch (const std::exception&) {
    }
  }
  refuse_sample(path, line, "a log-likelihood is no number");
}

ScoredRow read_sample(const Json& sample, const fs::path& path, int64_t line) {
  ScoredRow row;
  for (const char* key : {"arguments", "filtered_resps", "metrics", "doc_hash"}) {
    if (!sample.contains(key)) refuse_sample(path, line, fmt::format("the sample has no '{}'", key));
  }
  const Json& arguments = sample["arguments"];
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string key = fmt::format("gen_args_{}", i);
    if (!arguments.is_object() || !arguments.contains(key) || !arguments[key].contains("arg_1") ||
        !arguments[key]["arg_1"].is_string() || !arguments[key]["arg_0"].is_string()) {
      refuse_sample(path, line, fmt::format("the sample's arguments have no '{}' with two texts", key));
    }
    const auto continuation = arguments[key]["arg_1"].get<std::string>();
    row.choices.push_back(continuation.starts_with(' ') ? continuation.substr(1) : continuation);
    if (i == 0) row.question = arguments[key]["arg_0"];
  }
  for (const Json& response : sample["filtered_resps"]) {
    if (!response.is_array() || response.empty()) refuse_sample(path, line, "a response is not [log-likelihood, …]");
    row.log_likelihoods.push_back(number_of(response[0], path, line));
  }
  if (row.choices.empty() || row.choices.size() != row.log_likelihoods.size()) {
    refuse_sample(path, line,
                  fmt::format("{} choices have {} log-likelihoods", row.choices.size(), row.log_likelihoods.size()));
  }
  for (const Json& metric : sample["metrics"]) {
    const std::string name = metric.is_string() ? metric.get<std::string>() : std::string();
    if (!sample.contains(name) || !sample[name].is_number()) refuse_sample(path, line, "a metric has no value");
    row.metrics[name] = sample[name];
  }
  row.prompt_hash = sample.value("prompt_hash", "");
  return row;
}

void read_samples(const fs::path& path, const std::string& task, ScoredModel& model) {
  ScoredRows& rows = model.tasks[task.starts_with("mmlu_") ? "mmlu" : task];
  for (const auto& record : read_jsonl(path)) {
    if (!record.value.is_object()) refuse_sample(path, record.line, "the line is not an object");
    auto row = read_sample(record.value, path, record.line);
    const std::string hash = record.value["doc_hash"].is_string() ? record.value["doc_hash"].get<std::string>() : "";
    std::string key = hash;
    for (int copy = 1; rows.contains(key); ++copy) key = fmt::format("{}#{}", hash, copy);
    rows[key] = std::move(row);
  }
}

std::optional<double> measured(const Json& json, const char* key) {
  if (!json.contains(key) || !json[key].is_number()) return std::nullopt;
  return json[key].get<double>();
}

ScoredModel read_model(const Json& json, const Json& numbers, const std::string& label, const fs::path& results) {
  ScoredModel model{.label = label,
                    .size_bytes = measured(numbers, "size_bytes"),
                    .peak_memory_bytes = measured(numbers, "peak_memory_bytes"),
                    .ms_per_token = measured(numbers, "ms_per_token"),
                    .tasks = {}};
  const fs::path folder = results.parent_path();
  if (json.contains("samples") && json["samples"].is_object()) {
    for (const auto& [task, file] : json["samples"].items()) {
      const auto name = fs::path(file.is_string() ? file.get<std::string>() : "").filename();
      read_samples(folder / name, task, model);
    }
  } else if (json.contains("results")) {
    const std::string stem = results.stem().string();
    const std::string date = stem.starts_with("results_") ? stem.substr(8) : std::string();
    for (const auto& item : json["results"].items()) {
      const fs::path path = folder / fmt::format("samples_{}_{}.jsonl", item.key(), date);
      if (fs::exists(path)) read_samples(path, item.key(), model);
    }
  }
  if (model.tasks.empty()) {
    throw Error(ErrorKind::kInput, results.string(), fmt::format("no scored rows of '{}' are beside it", label),
                "evaluate with --log-samples (lm-evaluation-harness: --log_samples), and keep the samples beside it");
  }
  return model;
}

}  // namespace

std::vector<ScoredModel> read_scored_models(const fs::path& results) {
  const Json json = read_json_file(results);
  std::vector<ScoredModel> models;
  if (json.contains("models") && json["models"].is_array()) {
    for (const auto& entry : json["models"]) {
      models.push_back(read_model(entry, entry, entry.value("label", "model"), results));
    }
    return models;
  }
  const Json numbers = json.value("measured", Json::object());
  models.push_back(read_model(json, numbers, results.stem().string(), results));
  return models;
}

}  // namespace potstill
