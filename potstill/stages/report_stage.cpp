#include "potstill/stages/report_stage.h"

#include <fmt/format.h>

#include <array>
#include <optional>
#include <string_view>
#include <vector>

#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"
#include "potstill/base/log.h"
#include "potstill/base/machine.h"
#include "potstill/stages/report_evaluation.h"
#include "potstill/stages/report_page.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

// In the order of the pipeline; also the order of the report's table of stages.
constexpr std::array<std::string_view, 12> kStages = {"prune",         "synth",  "teach",    "search",
                                                      "train",         "merge",  "quantize", "baseline-rtn",
                                                      "baseline-gptq", "export", "evaluate", "outliers"};

constexpr size_t kMaxRejected = 2000;  // of the refused pairs, so that the report stays a few MB

ordered_json records_of(const fs::path& path, size_t limit = SIZE_MAX) {
  ordered_json rows = ordered_json::array();
  if (!fs::exists(path)) return rows;
  for (const auto& record : read_jsonl(path)) {
    if (rows.size() == limit) break;
    rows.push_back(ordered_json(record.value));
  }
  return rows;
}

// Refused pairs without their lineage, which stands in rejected.jsonl.
ordered_json refused_pairs(const fs::path& path) {
  ordered_json rows = ordered_json::array();
  for (const auto& record : records_of(path, kMaxRejected)) {
    ordered_json row;
    for (const char* key : {"instruction", "input", "output", "subtopic", "fact", "passage", "choices", "answer_key",
                            "scores", "blind", "critique", "reason", "rule", "detail"}) {
      if (record.contains(key) && !record[key].empty() && record[key] != "") row[key] = record[key];
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

// {"format": {"truncated": 4, …}, …}
ordered_json rules_by_reason(const fs::path& path) {
  ordered_json counts = ordered_json::object();
  if (!fs::exists(path)) return counts;
  for (const auto& record : read_jsonl(path)) {
    const std::string reason = record.value.value("reason", "unknown"), rule = record.value.value("rule", reason);
    ordered_json& of_reason = counts[reason];
    if (of_reason.is_null()) of_reason = ordered_json::object();
    of_reason[rule] = of_reason.value(rule, 0) + 1;
  }
  return counts;
}

ordered_json files_of(const fs::path& run_dir) {
  ordered_json files = ordered_json::array();
  for (const auto stage : {"synth", "train", "merge", "quantize", "export"}) {
    if (!fs::is_directory(run_dir / stage)) continue;
    std::vector<fs::path> paths;
    for (const auto& entry : fs::directory_iterator(run_dir / stage)) {
      if (entry.is_regular_file() && entry.file_size() > 0) paths.push_back(entry.path());
    }
    std::sort(paths.begin(), paths.end());
    for (const auto& path : paths) files.push_back({{"path", path.string()}, {"bytes", fs::file_size(path)}});
  }
  return files;
}

// The few numbers at the top of the page.
ordered_json headline(const ordered_json& data) {
  ordered_json facts = ordered_json::object();
  if (!data["pairs"].empty()) facts["pairs kept"] = fmt::format("{}", data["pairs"].size());
  const auto& models = data["evaluation"].contains("models") ? data["evaluation"]["models"] : ordered_json::array();
  if (models.size() >= 2) {
    const auto &first = models.front(), &last = models.back();
    if (first.contains("size_bytes") && last.contains("size_bytes")) {
      facts["size, first to last"] = fmt::format("{} → {}", format_bytes(first["size_bytes"].get<uint64_t>()),
                                                 format_bytes(last["size_bytes"].get<uint64_t>()));
    }
    const auto change = [&](const char* key, const char* name) {
      if (first.contains(key) && last.contains(key) && first[key].is_number() && last[key].is_number()) {
        facts[name] = fmt::format("{:.3g} → {:.3g}", first[key].get<double>(), last[key].get<double>());
      }
    };
    change("kl", "KL to the teacher");
    change("top1_agreement", "top-1 agreement");
  }
  double seconds = 0;
  for (const auto& [name, stage] : data["stages"].items()) seconds += stage["measured"].value("seconds", 0.0);
  facts["whole run"] = format_duration(seconds);
  return facts;
}

}  // namespace

void run_report_stage(const ReportInputs& inputs, ArtifactWriter& out) {
  const fs::path& run = inputs.run_dir;
  ordered_json data = {{"name", inputs.name},
                       {"description", inputs.description},
                       {"command", inputs.command},
                       {"version", POTSTILL_VERSION},
                       {"machine", fmt::format("{}, {} CPUs", cpu_name(), num_cpus())},
                       {"stages", ordered_json::object()}};
  for (const auto stage : kStages) {
    const fs::path manifest = run / stage / "artifact.json";
    if (fs::exists(manifest)) data["stages"][std::string(stage)] = ordered_json(read_json_file(manifest));
  }
  if (data["stages"].empty()) {
    throw Error(ErrorKind::kInput, run.string(), "holds no finished stage",
                "give a run's folder: the --run-dir of `potstill run`, runs/<name> by default");
  }
  data["pairs"] = records_of(run / "synth" / "D_gen.jsonl");
  data["rejected"] = refused_pairs(run / "synth" / "rejected.jsonl");
  data["rules_by_reason"] = rules_by_reason(run / "synth" / "rejected.jsonl");
  data["trials"] = records_of(run / "search" / "trials.jsonl");
  if (data["stages"].contains("search")) {
    data["search_objective"] = data["stages"]["search"]["config"].value("objective", "kl");
  }
  if (const fs::path best = run / "search" / "best.json"; fs::exists(best)) {
    data["search_best"] = ordered_json(read_json_file(best));
  }
  data["train_log"] = records_of(run / "train" / "train_log.jsonl");
  data["layer_errors"] = records_of(run / "quantize" / "layer_errors.jsonl");
  if (const fs::path outliers = run / "outliers" / "outliers.json"; fs::exists(outliers)) {
    data["outliers"] = ordered_json(read_json_file(outliers));
  }
  const fs::path evaluation = run / "evaluate" / "evaluation.json";
  data["evaluation"] = fs::exists(evaluation) ? ordered_json(read_json_file(evaluation)) : ordered_json::object();
  if (const fs::path plan = run / "plan.json"; fs::exists(plan)) data["plan"] = ordered_json(read_json_file(plan));
  data["comparisons"] = evaluation_comparisons(evaluation);
  data["files"] = files_of(run);
  data["facts"] = headline(data);
  write_report_page(out.file("report.html"), data);
  out.mark_volatile("report.html");  // it shows times
  out.measure("report_bytes", fs::file_size(out.file("report.html")));
}

}  // namespace potstill
