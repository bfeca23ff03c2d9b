#include "potstill/quant/quantize_model.h"

#include <fmt/format.h>

#include <algorithm>

#include "potstill/base/byte_count.h"
#include "potstill/base/check.h"
#include "potstill/base/error.h"
#include "potstill/base/interrupt.h"
#include "potstill/base/log.h"
#include "potstill/base/machine.h"
#include "potstill/quant/memory_plan.h"
#include "potstill/quant/sensitivity.h"

namespace potstill {
namespace {

constexpr double kMostRounded = 0.05;  // share of linears that may end on the last resort

constexpr int64_t kSensitivityTokens = 2048;

// 0 = one scale a row.
int64_t resolve_group_size(const std::string& word, const ModelConfig& model) {
  if (word == "channel") return 0;
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

void round_whole_model(const ModelPackage& model, const QuantizeSettings& settings, const LayerKeeper& keeper) {
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
  if (config.bits != 4 && config.bits != 8) {
    throw Error(ErrorKind::kUsage, "quantize", fmt::format("bits is {}", config.bits), "4 or 8");
  }
  settings.method = config.method == "rtn"   ? QuantMethod::kRtn
                    : config.method == "awq" ? QuantMethod::kAwq
                                             : QuantMethod::kGptq;
  settings.grid.bits = config.bits;
  settings.true_sequential = config.true_sequential;
  settings.grid.group_size = resolve_group_size(config.group_size, model);
  settings.grid.symmetric = config.symmetric;
  const bool best = config.quality == "best";
  const std::string automatic = config.method != "rtn" && config.quality != "fast" ? "hessian" : "none";
  settings.grid.clip = parse_clip_rule(config.clip == "auto" ? automatic : config.clip);
  if (settings.method == QuantMethod::kRtn && settings.grid.clip == ClipRule::kHessian) {
    throw Error(ErrorKind::kUsage, "quantize", "method 'rtn' sees no calibration text, which clip 'hessian' needs",
                "clip none or mse, or method gptq");
  }
  settings.order = parse_quant_order(config.order);
  settings.damp = config.damp;
  settings.refine.rounds = config.refine >= 0 ? config.refine : best ? 2 : 0;
  const double automatic_strength = best ? 0.5 : config.method == "gptaq" ? 0.25 : 0.0;
  settings.asymmetric.largest_strength = config.asymmetry >= 0 ? config.asymmetry : automatic_strength;
  settings.asymmetric.damp = config.asymmetry_damp;
  if (settings.method == QuantMethod::kAwq && !settings.true_sequential) {
    throw Error(ErrorKind::kUsage, "quantize", "method 'awq' works in true sequential order alone",
                "leave out --no-true-sequential, or take method gptq");
  }
  if (settings.method != QuantMethod::kGptq) {  // they have nothing to refine
    settings.refine.rounds = 0;
    settings.asymmetric.largest_strength = 0;
  }
  settings.target_bpw = config.target_bpw;
  if (settings.target_bpw > 0) {
    if (!settings.grid.symmetric || settings.grid.bits != 4) {
      throw Error(ErrorKind::kUsage, "quantize", "target_bpw mixes symmetric 4-bit and 8-bit linears",
                  "leave out --no-symmetric and --bits");
    }
    choose_eight_bits(model, settings.grid,
                      std::vector<double>(static_cast<size_t>(model.num_hidden_layers) * kNumLinears, 0.0),
                      settings.target_bpw);  // refuses what cannot be
  }
  settings.memory_bytes = config.memory == "auto" ? 0 : parse_byte_count(config.memory, "memory");
  return settings;
}

void plan_eight_bits(const ModelPackage& model, std::span<const std::vector<TokenId>> calibration,
                     const LayerStreamOptions& stream, QuantizeSettings& settings) {
  if (settings.target_bpw <= 0) return;
  size_t count = 0;
  for (int64_t tokens = 0; count < calibration.size() && tokens < kSensitivityTokens; ++count) {
    tokens += static_cast<int64_t>(calibration[count].size());
  }
  settings.sensitivity = measure_sensitivity(model, calibration.first(count), settings.grid, stream);
  settings.eight_bits = choose_eight_bits(model.config, settings.grid, settings.sensitivity, settings.target_bpw);
}

void quantize_model(const ModelPackage& model, std::span<const std::vector<TokenId>> calibration,
                    const QuantizeSettings& settings, const LayerStreamOptions& stream, const LayerKeeper& keeper) {
  POTSTILL_CHECK(settings.target_bpw <= 0 || !settings.eight_bits.empty());
  if (settings.method == QuantMethod::kRtn) return round_whole_model(model, settings, keeper);
  const at::NoGradGuard no_grad;
  const int64_t layers = model.config.num_hidden_layers;
  int64_t num_tokens = 0;
  for (const auto& sequence : calibration) num_tokens += static_cast<int64_t>(sequence.size());
  const MemoryPlan plan =
      plan_memory(model.config, settings, num_tokens, stream.tokens_per_batch, settings.memory_bytes);
  if (settings.memory_bytes > 0 && plan.needed() > settings.memory_bytes) {
    log_warning("quantizing takes about {} where {} are allowed; fewer or shorter sequences take less",
                format_bytes(plan.needed()), format_bytes(settings.memory_bytes));
  }
  LastResorts last_resorts;
  WorstLinears worst;
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
               const LayerContext context{.rotary = rotary,
                                          .config = model.config,
                                          .settings = settings,
                                          .activation_bytes = plan.activations,
                                          .worst = worst};
               const auto result =
                   quantize_layer(layer, weights, state, reference, context, finished ? &*finished : nullptr);
               if (!finished) keeper.save(result);
               last_resorts.add(result);
               return_freed_memory();  // buffers of many sizes leave holes, which would add up over the layers
               progress.advance(1, fmt::format("down_proj error {:.3f}", result.modules.back().row.relative_error));
             });
  last_resorts.require_few();
  progress.finish();
}

}  // namespace potstill
