#include <fmt/format.h>

#include <cmath>

#include "potstill/base/log.h"
#include "potstill/eval/student_t.h"
#include "potstill/stages/study.h"
#include "potstill/stages/text_table.h"

namespace potstill {
namespace {

using Json = nlohmann::ordered_json;

// NaN, which JSON has not, becomes null.
Json number(double value) { return std::isfinite(value) ? Json(value) : Json(); }

Json mean_to_json(double mean, const Interval& interval) {
  return {{"mean", number(mean)}, {"low", number(interval.low)}, {"high", number(interval.high)}};
}

Json model_to_json(const StudyModel& model) {
  const SeededMean all = seeded_mean(model.correct);
  Json accuracy = mean_to_json(all.mean, all.interval);
  accuracy["rows"] = all.rows;
  for (const auto& [task, seeds] : model.correct) {
    const SeededMean mean = seeded_mean({{task, seeds}});
    Json entry = mean_to_json(mean.mean, mean.interval);
    entry["rows"] = mean.rows;
    for (const auto& rows : seeds) entry["values"].push_back(mean_interval(rows).mean);
    accuracy["tasks"][task] = entry;
  }
  Json numbers = Json::object();
  for (const auto& [name, values] : model.numbers) {
    const auto mean = mean_interval(values);
    numbers[name] = mean_to_json(mean.mean, mean.interval);
    numbers[name]["values"] = values;
  }
  return {{"label", model.label}, {"accuracy", accuracy}, {"numbers", numbers}};
}

std::string with_interval(double mean, const Interval& interval, double scale, int digits) {
  if (std::isnan(interval.low)) return fmt::format("{:.{}f}", scale * mean, digits);
  return fmt::format("{:.{}f} [{:.{}f}, {:.{}f}]", scale * mean, digits, scale * interval.low, digits,
                     scale * interval.high, digits);
}

std::string scalar(const StudyModel& model, const std::string& name, double scale, int digits) {
  const auto found = model.numbers.find(name);
  if (found == model.numbers.end()) return {};
  const auto mean = mean_interval(found->second);
  return with_interval(mean.mean, mean.interval, scale, digits);
}

}  // namespace

Json study_to_json(const StudyResult& result) {
  Json json = {{"kind", result.kind}, {"name", result.name}, {"seeds", result.seeds}, {"arms", Json::array()}};
  for (const auto& arm : result.arms) {
    Json entry = {{"name", arm.name}, {"what", arm.what}, {"overrides", arm.overrides}, {"models", Json::array()}};
    for (const auto& model : arm.models) entry["models"].push_back(model_to_json(model));
    for (const auto& run : arm.training) entry["training"].push_back({{"seed", run.seed}, {"log", run.log}});
    json["arms"].push_back(entry);
  }
  json["findings"] = Json::array();
  for (const auto& finding : result.findings) {
    json["findings"].push_back({{"question", finding.question},
                                {"estimate", number(finding.estimate)},
                                {"low", number(finding.low)},
                                {"high", number(finding.high)},
                                {"unit", finding.unit},
                                {"answer", finding.answer}});
  }
  return json;
}

std::string study_table(const StudyResult& result) {
  std::vector<std::vector<std::string>> rows{{"arm", "model", "size"}};
  std::vector<std::string> tasks;
  for (const auto& [task, seeds] : result.arms.front().models.front().correct) tasks.push_back(task);
  for (const auto& task : tasks) rows[0].push_back(task + " acc, %");
  rows[0].insert(rows[0].end(), {"KL", "top-1, %", "ppl (pairs)", "ppl (text)"});
  for (const auto& arm : result.arms) {
    for (const auto& model : arm.models) {
      const auto size = model.numbers.find("size_bytes");
      rows.push_back({arm.name, model.label,
                      size == model.numbers.end() ? "" : format_bytes(static_cast<uint64_t>(size->second.front()))});
      for (const auto& task : tasks) {
        const SeededMean mean = seeded_mean({{task, model.correct.at(task)}});
        rows.back().push_back(with_interval(mean.mean, mean.interval, 100, 1));
      }
      rows.back().insert(rows.back().end(),
                         {scalar(model, "kl", 1, 4), scalar(model, "top1_agreement", 100, 1),
                          scalar(model, "pairs_perplexity", 1, 2), scalar(model, "text_perplexity", 1, 2)});
    }
  }
  std::string text = text_table(rows);
  std::vector<std::vector<std::string>> findings{{"question", "estimate", "95 % interval", "answer"}};
  for (const auto& finding : result.findings) {
    const std::string unit = finding.unit == "ratio" ? "" : " " + finding.unit;
    const int digits = finding.unit == "nats" ? 3 : 2;
    findings.push_back(
        {finding.question,
         std::isfinite(finding.estimate) ? fmt::format("{:.{}f}{}", finding.estimate, digits, unit) : "",
         std::isfinite(finding.low) ? fmt::format("{:.{}f} to {:.{}f}", finding.low, digits, finding.high, digits) : "",
         finding.answer});
  }
  if (findings.size() > 1) text += "\n\n" + text_table(findings);
  if (!result.findings.empty()) {
    text += fmt::format("\n\nVerdict: {}: {}.", result.findings[0].question, result.findings[0].answer);
  }
  return text;
}

}  // namespace potstill
