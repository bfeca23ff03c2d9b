#include "potstill/stages/outliers_stage.h"

#include <fmt/format.h>

#include "potstill/base/atomic_file.h"
#include "potstill/base/interrupt.h"
#include "potstill/base/log.h"
#include "potstill/stages/inspect_outliers.h"

namespace potstill {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kTokens = 4096, kSequenceLength = 128;  // at most: 32 pairs, of which most are shorter

// Mean over the rows of a list.
double mean_of(const Json& rows, const char* name) {
  double sum = 0;
  for (const auto& row : rows) sum += row.at(name).get<double>();
  return rows.empty() ? 0.0 : sum / static_cast<double>(rows.size());
}

}  // namespace

StageKey outliers_key(const OutliersInputs& inputs, uint64_t seed) {
  StageKey key{.stage = "outliers", .config = {{"tokens", kTokens}}, .inputs = {{"text", inputs.text}}, .seed = seed};
  if (inputs.plain) key.config["rendering"] = "plain";
  for (const auto& model : inputs.models) key.inputs.push_back({"model: " + model.label, model.path});
  return key;
}

void run_outliers_stage(const OutliersInputs& inputs, ArtifactWriter& out) {
  InspectOutliersInputs text;
  text.text = inputs.text;
  text.plain = inputs.plain;
  text.tokens = kTokens;
  text.sequence_length = kSequenceLength;
  text.seed = out.seed();
  text.device = inputs.device;
  Json calibration, models = Json::array(), means = Json::array();
  Progress progress("outliers", static_cast<int64_t>(inputs.models.size()), "models");
  for (const auto& model : inputs.models) {
    throw_if_interrupted();
    Json outliers = model_outliers(open_model(model.path), text, calibration);
    outliers["label"] = model.label;
    means.push_back({{"label", model.label},
                     {"activations_excess_kurtosis", mean_of(outliers["activations"], "excess_kurtosis")},
                     {"activations_channel_max_to_median", mean_of(outliers["activations"], "channel_max_to_median")},
                     {"weights_crest_factor", mean_of(outliers["weights"], "crest_factor")},
                     {"weights_spectral_norm", mean_of(outliers["weights"], "spectral_norm")}});
    models.push_back(std::move(outliers));
    progress.advance();
  }
  progress.finish();
  const Json outliers = {{"text", inputs.text.filename().string()}, {"calibration", calibration}, {"models", models}};
  write_file_atomically(out.file("outliers.json"), outliers.dump() + "\n");
  out.record("means", means);
}

}  // namespace potstill
