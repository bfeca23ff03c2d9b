#include "potstill/stages/quantize_stage.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"
#include "potstill/base/log.h"
#include "potstill/base/machine.h"
#include "potstill/formats/quantized_checkpoint.h"
#include "potstill/lm/model_origin.h"
#include "potstill/lm/model_package.h"
#include "potstill/quant/calibration.h"
#include "potstill/quant/consumers.h"
#include "potstill/quant/expected_size.h"
#include "potstill/quant/export_folder.h"
#include "potstill/quant/packed_model.h"
#include "potstill/quant/quantize_model.h"
#include "potstill/quant/sensitivity.h"

namespace potstill {
namespace {

constexpr int64_t kTokensPerInput = 8;  // fewer calibration tokens than this many times the widest input: a thin fit

// 4-bit blocks in a GGUF file are weights like any others to us, but were rounded once already.
bool holds_coarse_blocks(const ModelPackage& model) {
  return model.format == "gguf" && std::ranges::any_of(model.weights->weights(), [](const WeightInfo& weight) {
           return weight.dtype == DType::kQ4_0 || weight.dtype == DType::kQ4_1;
         });
}

ModelPackage open_source(const std::filesystem::path& path, bool dequantize) {
  ModelPackage model = open_model(path);
  if (dequantize) return model;
  if (dynamic_cast<const QuantizedCheckpoint*>(model.weights.get()) != nullptr) {
    throw Error(ErrorKind::kInput, path.string(),
                "the model is quantized already; rounding it again would only lose more",
                "give the model that it was made from, or say --dequantize");
  }
  if (holds_coarse_blocks(model)) {
    log_warning(
        "{}: its linears are in 4-bit blocks already; what they lost stays lost (--dequantize says that you know)",
        path.string());
  }
  return model;
}

std::vector<std::vector<TokenId>> read_calibration(const QuantizeInputs& inputs, const QuantizeConfig& config,
                                                   const ModelPackage& model, ArtifactWriter& out) {
  if (inputs.calibration.empty()) {
    throw Error(
        ErrorKind::kUsage, "quantize",
        fmt::format("{} needs calibration text and none was given",
                    config.method == "rtn" ? std::string("target_bpw") : fmt::format("method '{}'", config.method)),
        "--calibration FILE.jsonl|FILE.txt, or --method rtn without --target-bpw");
  }
  CalibrationSet set =
      load_calibration(inputs.calibration, model, config.sequences, config.sequence_length, out.seed());
  const auto& summary = set.summary;
  std::string lengths;
  for (const auto& bar : summary.at("lengths")) {
    lengths += fmt::format("{}{} of up to {}", lengths.empty() ? "" : ", ", bar.at("sequences").get<size_t>(),
                           bar.at("up_to").get<size_t>());
  }
  log_info("calibration: {}; {} sequences, {} cut at {} tokens; {} tokens, {} distinct; lengths: {}",
           summary.at("form").get<std::string>(), set.sequences.size(), summary.at("truncated").get<int64_t>(),
           config.sequence_length, set.num_tokens(), summary.at("distinct_tokens").get<int64_t>(), lengths);
  const int64_t widest = std::max({model.config.intermediate_size, model.config.hidden_size, model.config.q_size()});
  if (set.num_tokens() < kTokensPerInput * widest) {
    log_warning("{} calibration tokens are few for inputs of width {}: {} or more are better", set.num_tokens(), widest,
                kTokensPerInput * widest);
  }
  out.record("calibration", set.summary);
  return std::move(set.sequences);
}

// A linear with a large error and, where it was measured, what would help it.
nlohmann::ordered_json worst_of(const ModuleRow& row) {
  nlohmann::ordered_json json = {
      {"module", row.path()}, {"relative_error", row.relative_error}, {"rounding_error", row.rounding_error}};
  for (const auto& [key, value] :
       {std::pair{"with_8_bits", row.error_with_8_bits}, std::pair{"with_half_groups", row.error_with_half_groups},
        std::pair{"held_out", row.error_held_out}, std::pair{"fitted", row.error_fitted}}) {
    if (value > 0) json[key] = value;
  }
  return json;
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
  nlohmann::ordered_json troubles = nlohmann::ordered_json::array();
  for (const auto& row : rows) {
    error += row.relative_error / static_cast<double>(rows.size());
    rounding += row.rounding_error / static_cast<double>(rows.size());
    rounded += settings.method == QuantMethod::kGptq && row.rounded;
    more_damping += row.attempts > 1;
    dead += row.dead_inputs;
    better += row.relative_error < row.rounding_error;
    if (row.trouble == "none") continue;
    troubles.push_back({{"module", row.path()},
                        {"cause", row.trouble},
                        {"damp", row.damp},
                        {"dead_inputs", row.dead_inputs},
                        {"dependent_inputs", row.dependent_inputs},
                        {"tokens", row.tokens},
                        {"rounded", row.rounded},
                        {"relative_error", row.relative_error}});
  }
  std::ranges::sort(rows, [](const ModuleRow& a, const ModuleRow& b) { return a.relative_error > b.relative_error; });
  nlohmann::ordered_json worst = nlohmann::ordered_json::array();
  for (size_t i = 0; i < std::min<size_t>(3, rows.size()); ++i) {
    worst.push_back(worst_of(rows[i]));
  }
  return {{"linears", rows.size()},
          {"mean_relative_error", error},
          {"mean_rounding_error", rounding},
          {"better_than_rounding", better},
          {"rounded_as_last_resort", rounded},
          {"needed_more_damping", more_damping},
          {"dead_inputs", dead},
          {"worst", worst},
          {"troubles", troubles}};
}

// README.md: what the Hub shows of the folder.
void write_card(const ModelPackage& model, const QuantizeConfig& config, const QuantizeSettings& settings,
                const nlohmann::ordered_json& errors, ArtifactWriter& out) {
  const auto origin = derived_origin(read_model_origin(model.path));
  std::string body =
      fmt::format("{} quantized by potstill {}.\n\n| setting | value |\n|---|---|\n", origin.name, POTSTILL_VERSION);
  const auto values = config_to_json(config);
  for (const auto& [name, value] : values.items()) {
    const bool own = name == "memory" || name == "for" || name == "calibration" || name == "embeddings";
    if (!own) body += fmt::format("| {} | {} |\n", name, value.is_string() ? value.get<std::string>() : value.dump());
  }
  body += fmt::format(
      "\n{:.3f} bits a weight of the linears, scales counted; mean relative output error {:.4f} (rounding to "
      "nearest: {:.4f}), {} linears on the last resort.\n",
      bits_per_weight(model.config, settings.grid, settings.eight_bits), errors.at("mean_relative_error").get<double>(),
      errors.at("mean_rounding_error").get<double>(), errors.at("rounded_as_last_resort").get<int64_t>());
  write_file_atomically(out.file("README.md"),
                        model_card(origin, origin.name + " in 4 bits", {"compressed-tensors", config.method}, body));
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
  // how much memory it may take changes no byte, and who loads it neither; the text counts by its content
  for (const char* name : {"memory", "for", "calibration"}) key.config.erase(name);
  if (config.method == "rtn" && config.target_bpw <= 0) return key;
  nlohmann::ordered_json weights = nlohmann::ordered_json::array();
  for (size_t i = 0; i < inputs.calibration.size(); ++i) {
    key.inputs.push_back({i == 0 ? "calibration" : fmt::format("calibration-{}", i + 1), inputs.calibration[i].path});
    weights.push_back(inputs.calibration[i].weight);
    if (inputs.calibration[i].plain) key.config["rendering"] = "plain";
    if (const auto& lines = inputs.calibration[i].left_out; !lines.empty()) key.config["left_out_lines"] = lines;
  }
  if (weights.size() > 1) key.config["calibration_weights"] = weights;
  return key;
}

void run_quantize_stage(const QuantizeInputs& inputs, const QuantizeConfig& config, ArtifactWriter& out) {
  keep_freed_memory();  // a batch's buffers serve the next one; each layer gives back what is left
  const ModelPackage model = open_source(inputs.model, config.dequantize);
  QuantizeSettings settings = resolve_settings(config, model.config);
  require_consumers(
      model.config,
      {.bits = settings.grid.bits, .group_size = settings.grid.group_size, .symmetric = settings.grid.symmetric},
      config.consumers, "quantize");
  LayerStreamOptions stream;
  stream.device = compute_device(inputs.device);
  // The forward is a third of the work and its rounding reaches every Hessian: bf16 only when it is asked for.
  stream.dtype = inputs.dtype == "auto" ? at::kFloat : compute_dtype(inputs.dtype, stream.device);

  std::vector<std::vector<TokenId>> calibration;
  if (settings.needs_calibration()) calibration = read_calibration(inputs, config, model, out);
  plan_eight_bits(model, calibration, stream, settings);
  const ExpectedSize expected = expected_size(model, settings, std::stoll(config.embeddings), config.fake_quant);
  log_info("expected: folder {}, GGUF {} (linears {}, embeddings in {} bits {})", format_bytes(expected.folder_bytes),
           format_bytes(expected.gguf_bytes), format_bytes(expected.linears_bytes), config.embeddings,
           format_bytes(expected.embeddings_bytes));
  const LayerKeeper layers = keep_layers_in(out.work_file("layers"), settings);
  if (out.resumed() && layers.load(0)) log_info("going on with the layers that an earlier run finished");
  quantize_model(model, calibration, settings, stream, layers);
  if (config.fake_quant) {
    write_packed_model(model, settings, layers, out.work_file("packed"));
    export_dequantized_model(open_model(out.work_file("packed")), out.folder());
  } else {
    write_packed_model(model, settings, layers, out.folder());
  }

  const auto errors = write_layer_errors(layers, model.config.num_hidden_layers, settings, out);
  write_card(model, config, settings, errors, out);
  out.record("group_size",
             settings.grid.group_size > 0 ? nlohmann::json(settings.grid.group_size) : nlohmann::json("channel"));
  out.record("bits_per_weight", bits_per_weight(model.config, settings.grid, settings.eight_bits));
  out.record("eight_bit_linears", std::ranges::count(settings.eight_bits, true));
  out.record("embeddings_bits", std::stoll(config.embeddings));
  out.record("errors", errors);
  out.record("expected", expected.to_json());
  out.record("weights_bytes", weights_bytes(out.folder()));
}

}  // namespace potstill
