#include "potstill/quant/quantize_model.h"

#include <fmt/format.h>

#include <algorithm>

#include "potstill/base/error.h"
#include "potstill/base/interrupt.h"
#include "potstill/base/log.h"

namespace potstill {
namespace {

constexpr double kMostRounded = 0.05;  // share of linears that may end on the last resort

int64_t resolve_group_size(const std::string& word, const ModelConfig& model) {
  // the widest first: its complaint names the sizes that fit
  const int64_t widths[] = {model.hidden_size, model.q_size(), model.intermediate_size};
  if (word == "auto") {
    const int64_t size = largest_group_size(widths);
    if (size > 0) return size;
  }
  const int64_t size = word == "auto" ? 32 : std::stoll(word);
  const char* const linears[] = {"q_proj, k_proj, v_proj, gate_proj, up_proj", "o_proj", "down_proj"};
  for (size_t i = 0; i < std::size(widths); ++i) require_group_divides(size, widths[i], linears[i]);
  return size;
}

// Counts the linears that ended on the last resort; a few are a nuisance, many are a wrong model.
class LastResorts {
 public:
  void add(const QuantizedLayer& layer) {
    for (const auto& module : layer.modules) {
      ++total_;
      if (!module.row.rounded) continue;
      ++rounded_;
      log_warning("{}: rounded to nearest ({}, {} factorisations)", module.row.path(), module.row.trouble,
                  module.row.attempts);
    }
  }
  void require_few() const {
    if (static_cast<double>(rounded_) <= kMostRounded * static_cast<double>(total_)) return;
    throw Error(ErrorKind::kNumeric, "quantize",
                fmt::format("{} of {} linears could not be fitted and were rounded to nearest", rounded_, total_),
                "the calibration text or the model gives NaN or infinite activations; try --dtype fp32, other text, or "
                "--method rtn");
  }

 private:
  int64_t total_ = 0, rounded_ = 0;
};

void round_model(const ModelPackage& model, const QuantizeSettings& settings, const LayerKeeper& keeper) {
  Progress progress("quantize", model.config.num_hidden_layers, "layers");
  for (int64_t layer = 0; layer < model.config.num_hidden_layers; ++layer) {
    throw_if_interrupted();
    if (!keeper.load(layer)) {
      keeper.save(round_layer(layer, load_decoder_layer(model, layer, at::kFloat, at::kCPU), settings));
    }
    progress.advance();
  }
  progress.finish();
}

}  // namespace

QuantizeSettings resolve_settings(const QuantizeConfig& config, const ModelConfig& model) {
  check_config(config, "quantize");
  QuantizeSettings settings;
  settings.gptq = config.method != "rtn";
  settings.grid.group_size = resolve_group_size(config.group_size, model);
  settings.grid.symmetric = config.symmetric;
  const bool best = config.quality == "best";
  const std::string automatic = settings.gptq && config.quality != "fast" ? "hessian" : "none";
  settings.grid.clip = parse_clip_rule(config.clip == "auto" ? automatic : config.clip);
  if (!settings.gptq && settings.grid.clip == ClipRule::kHessian) {
    throw Error(ErrorKind::kUsage, "quantize", "method 'rtn' sees no calibration text, which clip 'hessian' needs",
                "clip none or mse, or method gptq");
  }
  settings.order = parse_quant_order(config.order);
  settings.damp = config.damp;
  settings.refine.rounds = config.refine >= 0 ? config.refine : best ? 2 : 0;
  const double automatic_strength = best ? 0.5 : config.method == "gptaq" ? 0.25 : 0.0;
  settings.asymmetric.largest_strength = config.asymmetry >= 0 ? config.asymmetry : automatic_strength;
  settings.asymmetric.damp = config.asymmetry_damp;
  settings.activation_bytes = static_cast<uint64_t>(config.memory_mb) * 1000000;
  return settings;
}

void quantize_model(const ModelPackage& model, std::span<const std::vector<TokenId>> calibration,
                    const QuantizeSettings& settings, const LayerStreamOptions& stream, const LayerKeeper& keeper) {
  if (!settings.gptq) return round_model(model, settings, keeper);
  const at::NoGradGuard no_grad;
  const int64_t layers = model.config.num_hidden_layers;
  LastResorts last_resorts;
  Progress progress("quantize", layers, "layers");
  CorpusState corpus = embed_corpus(model, calibration, stream);
  // What the unquantized model makes of the same tokens: all of them for asymmetric calibration, else a batch to
  // measure the error of each block's output with.
  const bool asymmetric = settings.asymmetric.largest_strength > 0;
  const size_t followed = asymmetric ? calibration.size() : corpus.sequence_of.front().size();
  CorpusState reference = embed_corpus(model, calibration.first(followed), stream);
  run_layers(model, corpus, stream, 0, layers,
             [&](int64_t layer, DecoderLayer& weights, CorpusState& state, const RotaryTable& rotary) {
               throw_if_interrupted();
               const auto finished = keeper.load(layer);
               const auto result = quantize_layer(layer, weights, state, reference, rotary, model.config, settings,
                                                  finished ? &*finished : nullptr);
               if (!finished) keeper.save(result);
               last_resorts.add(result);
               progress.advance(1, fmt::format("down_proj error {:.3f}", result.modules.back().row.relative_error));
             });
  last_resorts.require_few();
  progress.finish();
}

}  // namespace potstill
