#include "potstill/stages/quantize_stage.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"
#include "potstill/base/log.h"
#include "potstill/formats/quantized_checkpoint.h"
#include "potstill/lm/model_package.h"
#include "potstill/quant/calibration.h"
#include "potstill/quant/packed_model.h"
#include "potstill/quant/quantize_model.h"

namespace potstill {
namespace {

constexpr int64_t kTokensPerInput = 8;  // fewer calibration tokens than this many times the widest input: a thin fit

ModelPackage open_source(const std::filesystem::path& path, bool dequantize) {
  ModelPackage model = open_model(path);
  if (dynamic_cast<const QuantizedCheckpoint*>(model.weights.get()) != nullptr && !dequantize) {
    throw Error(ErrorKind::kInput, path.string(),
                "the model is quantized already; rounding it again would only lose more",
                "give the model that it was made from, or say --dequantize");
  }
  return model;
}

std::vector<std::vector<TokenId>> read_calibration(const QuantizeInputs& inputs, const QuantizeConfig& config,
                                                   const ModelPackage& model, ArtifactWriter& out) {
  if (inputs.calibration.empty()) {
    throw Error(ErrorKind::kUsage, "quantize", "method 'gptq' needs calibration text and none was given",
                "--calibration FILE.jsonl|FILE.txt, or --method rtn");
  }
  CalibrationSet set =
      load_calibration(inputs.calibration, model, config.sequences, config.sequence_length, out.seed());
  const int64_t widest = std::max(model.config.intermediate_size, model.config.hidden_size);
  if (set.num_tokens() < kTokensPerInput * widest) {
    log_warning("{} calibration tokens are few for inputs of width {}: {} or more are better", set.num_tokens(), widest,
                kTokensPerInput * widest);
  }
  out.record("calibration", set.summary);
  return std::move(set.sequences);
}

// Errors of all linears as JSON lines; returns what the manifest says of them.
nlohmann::ordered_json write_layer_errors(const LayerKeeper& layers, int64_t num_layers,
                                          const QuantizeSettings& settings, ArtifactWriter& out) {
  std::vector<ModuleRow> rows;
  std::string lines;
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    const auto quantized = layers.load(layer);
    for (const auto& module : quantized->modules) {
      lines += to_json_line(module.row.to_json()) + "\n";
      rows.push_back(module.row);
    }
  }
  write_file_atomically(out.file("layer_errors.jsonl"), lines);
  out.mark_volatile("layer_errors.jsonl");  // it holds seconds

  double error = 0.0, rounding = 0.0;
  int64_t rounded = 0, more_damping = 0, dead = 0, better = 0;
  for (const auto& row : rows) {
    error += row.relative_error / static_cast<double>(rows.size());
    rounding += row.rounding_error / static_cast<double>(rows.size());
    rounded += settings.gptq && row.rounded;
    more_damping += row.attempts > 1;
    dead += row.dead_inputs;
    better += row.relative_error < row.rounding_error;
  }
  std::ranges::sort(rows, [](const ModuleRow& a, const ModuleRow& b) { return a.relative_error > b.relative_error; });
  nlohmann::ordered_json worst = nlohmann::ordered_json::array();
  for (size_t i = 0; i < std::min<size_t>(3, rows.size()); ++i) {
    worst.push_back({{"module", rows[i].path()}, {"relative_error", rows[i].relative_error}});
  }
  return {{"linears", rows.size()},
          {"mean_relative_error", error},
          {"mean_rounding_error", rounding},
          {"better_than_rounding", better},
          {"rounded_as_last_resort", rounded},
          {"needed_more_damping", more_damping},
          {"dead_inputs", dead},
          {"worst", worst}};
}

uint64_t weights_bytes(const std::filesystem::path& folder) {
  uint64_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".safetensors") bytes += entry.file_size();
  }
  return bytes;
}

}  // namespace

StageKey quantize_key(const QuantizeInputs& inputs, const QuantizeConfig& config, uint64_t seed) {
  StageKey key{
      .stage = "quantize", .config = config_to_json(config), .inputs = {{"model", inputs.model}}, .seed = seed};
  key.config["dtype"] = inputs.dtype;
  if (!inputs.calibration.empty() && config.method != "rtn") key.inputs.push_back({"calibration", inputs.calibration});
  return key;
}

void run_quantize_stage(const QuantizeInputs& inputs, const QuantizeConfig& config, ArtifactWriter& out) {
  const ModelPackage model = open_source(inputs.model, config.dequantize);
  const QuantizeSettings settings = resolve_settings(config, model.config);
  LayerStreamOptions stream;
  stream.device = compute_device(inputs.device);
  // The forward is a third of the work and its rounding reaches every Hessian: bf16 only when it is asked for.
  stream.dtype = inputs.dtype == "auto" ? at::kFloat : compute_dtype(inputs.dtype, stream.device);

  std::vector<std::vector<TokenId>> calibration;
  if (settings.gptq) calibration = read_calibration(inputs, config, model, out);
  const LayerKeeper layers = keep_layers_in(out.work_file("layers"), settings);
  if (out.resumed() && layers.load(0)) log_info("going on with the layers that an earlier run finished");
  quantize_model(model, calibration, settings, stream, layers);
  write_packed_model(model, settings, layers, out.folder());

  out.record("group_size", settings.grid.group_size);
  out.record("errors", write_layer_errors(layers, model.config.num_hidden_layers, settings, out));
  out.record("weights_bytes", weights_bytes(out.folder()));
}

}  // namespace potstill
