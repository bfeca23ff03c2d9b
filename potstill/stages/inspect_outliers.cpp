#include "potstill/stages/inspect_outliers.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <vector>

#include "potstill/base/machine.h"
#include "potstill/quant/calibration.h"
#include "potstill/quant/outliers.h"
#include "potstill/stages/report_page.h"

namespace potstill {
namespace {

using nlohmann::ordered_json;

// Rows of both models by the same key, in the first one's order.
std::vector<std::vector<const ordered_json*>> paired(const ordered_json& models, const char* list,
                                                     const std::function<std::string(const ordered_json&)>& key) {
  std::vector<std::vector<const ordered_json*>> rows;
  std::map<std::string, size_t> at;
  for (const auto& row : models[0][list]) {
    at[key(row)] = rows.size();
    rows.push_back({&row});
  }
  if (models.size() > 1) {
    for (const auto& row : models[1][list]) {
      if (const auto found = at.find(key(row)); found != at.end()) rows[found->second].push_back(&row);
    }
  }
  return rows;
}

std::string cells(const std::vector<const ordered_json*>& rows, const char* name, int width) {
  std::string text;
  for (const auto* row : rows) text += fmt::format("{:>{}.4g}", row->at(name).get<double>(), width);
  return text;
}

}  // namespace

ordered_json model_outliers(const ModelPackage& model, const InspectOutliersInputs& inputs, ordered_json& calibration) {
  std::vector<std::vector<TokenId>> sequences;
  if (!inputs.text.empty()) {
    const int64_t count = std::max<int64_t>(1, inputs.tokens / inputs.sequence_length);
    const CalibrationSource source{.path = inputs.text, .weight = 1.0, .plain = inputs.plain};
    auto set = load_calibration(std::span(&source, 1), model, count, inputs.sequence_length, inputs.seed);
    sequences = std::move(set.sequences);
    calibration = set.summary;
  }
  LayerStreamOptions stream;
  stream.device = compute_device(inputs.device);
  stream.dtype = inputs.dtype == "auto" ? at::kFloat : compute_dtype(inputs.dtype, stream.device);
  auto json = measure_outliers(model, sequences, stream).to_json();
  json["path"] = model.path.string();
  return json;
}

ordered_json inspect_outliers(const ModelPackage& model, const InspectOutliersInputs& inputs) {
  ordered_json text;
  ordered_json models = ordered_json::array({model_outliers(model, inputs, text)});
  if (!inputs.compare.empty()) models.push_back(model_outliers(open_model(inputs.compare), inputs, text));
  return {{"text", inputs.text.string()}, {"calibration", text}, {"models", models}};
}

std::string outliers_text(const ordered_json& outliers) {
  const auto& models = outliers.at("models");
  std::string text;
  for (size_t i = 0; i < models.size(); ++i) {
    text += fmt::format("{}{}\n", models.size() > 1 ? fmt::format("{}: ", i == 0 ? "A" : "B") : "",
                        models[i].at("path").get<std::string>());
  }
  const std::string both = models.size() > 1 ? " (A, B)" : "";
  const int width = 11, span = width * static_cast<int>(models.size());
  const auto heading = [&](const char* name) { return fmt::format("{:>{}}", name, span); };
  if (!models[0].at("activations").empty()) {
    text += fmt::format("\n{:<28}{}{}{}{}{}{}\n", "activations" + both, heading("kurtosis"), heading("of a token"),
                        heading("max/median"), heading("of channels"), heading("ch. > 6 s"), heading("max |x|"));
    const auto key = [](const ordered_json& row) {
      return fmt::format("{} {}", row.at("layer").get<int64_t>(), row.at("tensor").get<std::string>());
    };
    for (const auto& rows : paired(models, "activations", key)) {
      text += fmt::format("{:<28}", key(*rows.front()));
      for (const char* name : {"excess_kurtosis", "token_kurtosis", "token_max_to_median", "channel_max_to_median",
                               "channels_above_6_sigma", "max_abs"}) {
        text += cells(rows, name, width);
      }
      text += "\n";
    }
  }
  text += fmt::format("\n{:<38}{}{}{}{}\n", "weights" + both, heading("kurtosis"), heading("crest"),
                      heading("spectral"), heading("stable rank"));
  const auto name_of = [](const ordered_json& row) { return row.at("name").get<std::string>(); };
  for (const auto& rows : paired(models, "weights", name_of)) {
    text += fmt::format("{:<38}", name_of(*rows.front()));
    for (const char* name : {"excess_kurtosis", "crest_factor", "spectral_norm", "stable_rank"}) {
      text += cells(rows, name, width);
    }
    text += "\n";
  }
  text.pop_back();
  return text;
}

void write_outliers_page(const std::filesystem::path& file, const ordered_json& outliers) {
  const auto& models = outliers.at("models");
  ordered_json data = {{"name", models.size() > 1 ? "outliers of two models" : "outliers"},
                       {"description", models[0].at("path")},
                       {"version", POTSTILL_VERSION},
                       {"machine", fmt::format("{}, {} CPUs", cpu_name(), num_cpus())},
                       {"outliers", outliers}};
  write_report_page(file, data);
}

}  // namespace potstill
