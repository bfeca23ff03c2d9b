#include "potstill/quant/quantize_layer.h"

#include <fmt/format.h>

#include <chrono>
#include <functional>
#include <iterator>
#include <optional>
#include <utility>

#include "potstill/base/check.h"
#include "potstill/base/error.h"
#include "potstill/base/machine.h"
#include "potstill/quant/input_statistics.h"

namespace potstill {
namespace {

constexpr size_t kNumLinears = std::size(kLinearNames);

class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

void require_finite(const at::Tensor& weight, const std::string& module) {
  if (at::isfinite(weight).all().item<bool>()) return;
  throw Error(
      ErrorKind::kNumeric, module + ".weight",
      fmt::format("holds {} values that are NaN or infinite", at::isfinite(weight).logical_not().sum().item<int64_t>()),
      "the checkpoint is damaged or its training diverged; quantize an earlier one");
}

// The inputs of a set of linears, needed twice: for H, and then for the output with the quantized weights. Kept
// between as far as memory allows.
class LayerInputs {
 public:
  LayerInputs(size_t num_batches, uint64_t memory, std::function<at::Tensor(size_t)> compute)
      : kept_(num_batches), memory_(memory), compute_(std::move(compute)) {}

  at::Tensor first_use(size_t batch) {
    auto inputs = compute_(batch);
    const auto bytes = static_cast<uint64_t>(inputs.numel()) * inputs.element_size();
    if (bytes <= memory_) {
      memory_ -= bytes;
      kept_[batch] = inputs;
    }
    return inputs;
  }
  at::Tensor last_use(size_t batch) {
    return kept_[batch].defined() ? std::exchange(kept_[batch], at::Tensor()) : compute_(batch);
  }

 private:
  std::vector<at::Tensor> kept_;
  uint64_t memory_;
  std::function<at::Tensor(size_t)> compute_;
};

// The four inputs of a layer's linears and what its outputs do to the hidden states, over one stream of batches.
class LayerSteps {
 public:
  LayerSteps(const DecoderLayer& weights, CorpusState& corpus, const RotaryTable& rotary, const ModelConfig& config)
      : weights_(weights), corpus_(corpus), rotary_(rotary), config_(config) {}

  at::Tensor attention_input(size_t b) const { return weights_.attention_input(corpus_.hidden[b], config_); }
  at::Tensor attention_output(size_t b) const {
    const auto x = attention_input(b);
    return weights_.attention(weights_.q_proj.forward(x), weights_.k_proj.forward(x), weights_.v_proj.forward(x),
                              corpus_.batches[b], rotary_, config_);
  }
  at::Tensor mlp_input(size_t b) const { return weights_.mlp_input(corpus_.hidden[b], config_); }
  at::Tensor mlp_activations(size_t b) const {
    const auto x = mlp_input(b);
    return swiglu(weights_.gate_proj.forward(x), weights_.up_proj.forward(x));
  }
  void add_output(size_t b, const Linear& linear, const at::Tensor& x) {
    corpus_.hidden[b] = corpus_.hidden[b] + linear.forward(x);
  }
  size_t num_batches() const { return corpus_.hidden.size(); }

 private:
  const DecoderLayer& weights_;
  CorpusState& corpus_;
  const RotaryTable& rotary_;
  const ModelConfig& config_;
};

using InputOf = at::Tensor (LayerSteps::*)(size_t) const;

// Every eighth batch, or the last of a few, is kept out of the fit of asymmetric calibration; one alone is not.
bool is_held_out(size_t batch, size_t num_batches) {
  return num_batches >= 8 ? batch % 8 == 7 : num_batches > 1 && batch + 1 == num_batches;
}

class LayerPass {
 public:
  LayerPass(int64_t layer, DecoderLayer& weights, CorpusState& corpus, CorpusState& reference,
            const RotaryTable& rotary, const ModelConfig& config, const QuantizeSettings& settings,
            const QuantizedLayer* finished)
      : layer_(layer),
        weights_(weights),
        unquantized_(weights),
        corpus_(corpus),
        reference_(reference),
        steps_(weights, corpus, rotary, config),
        reference_steps_(unquantized_, reference, rotary, config),
        settings_(settings),
        finished_(finished) {
    result_.layer = layer;
    result_.modules.resize(kNumLinears);
  }

  QuantizedLayer run() {
    // a norm is cheaper to take twice than to keep
    step({"q_proj", "k_proj", "v_proj"}, &LayerSteps::attention_input, 0);
    step({"o_proj"}, &LayerSteps::attention_output, settings_.activation_bytes);
    step({"gate_proj", "up_proj"}, &LayerSteps::mlp_input, 0);
    step({"down_proj"}, &LayerSteps::mlp_activations, settings_.activation_bytes);
    const double error = block_error();
    if (finished_ == nullptr) {
      for (auto& module : result_.modules) module.row.block_error = error;
    } else {
      result_ = *finished_;
    }
    return std::move(result_);
  }

 private:
  // One set of linears that share their input: H over the corpus, quantize, then the output of each batch.
  void step(const std::vector<const char*>& names, InputOf input, uint64_t memory) {
    const Stopwatch watch;
    const bool has_output = names.size() == 1;  // q, k, v and gate, up feed the next step, which computes them itself
    LayerInputs inputs(corpus_.hidden.size(), has_output ? memory : 0, [&](size_t b) { return (steps_.*input)(b); });
    const auto advance_reference = [&](size_t b, const at::Tensor& x) {
      if (has_output) reference_steps_.add_output(b, unquantized_.linear(names.front()), x);
    };
    if (finished_ == nullptr) {
      quantize(names, inputs, input, advance_reference, watch);
    } else {
      for (const char* name : names) install(name, finished_->modules[index_of(name)].weight);
      for (size_t b = 0; b < reference_steps_.num_batches() && has_output; ++b) {
        advance_reference(b, (reference_steps_.*input)(b));
      }
    }
    for (size_t b = 0; b < corpus_.hidden.size() && has_output; ++b) {
      steps_.add_output(b, weights_.linear(names.front()), inputs.last_use(b));
    }
  }

  void quantize(const std::vector<const char*>& names, LayerInputs& inputs, InputOf input,
                const std::function<void(size_t, const at::Tensor&)>& advance_reference, const Stopwatch& watch) {
    const auto& first = weights_.linear(names.front()).weight;
    const bool asymmetric = settings_.asymmetric.largest_strength > 0;
    HessianAccumulator plain(first.size(1), first.device());
    std::optional<DriftStatistics> drift;
    if (asymmetric) drift.emplace(first.size(1), first.device());
    InputStatistics statistics;
    for (size_t b = 0; b < corpus_.hidden.size(); ++b) {
      const auto x = inputs.first_use(b);
      if (b == 0) statistics = measure_inputs(x);
      at::Tensor reference;
      if (b < reference_steps_.num_batches()) {
        reference = (reference_steps_.*input)(b);
        advance_reference(b, reference);
      }
      if (asymmetric) {
        drift->add(reference, x, is_held_out(b, corpus_.hidden.size()));
      } else {
        plain.add(x);
      }
    }
    fit(names, asymmetric ? drift->hessian() : plain.finish(), drift ? &*drift : nullptr, statistics, watch);
  }

  // Rows of linears with one input do not see each other: stacked, they share the factor and fill the machine.
  void fit(const std::vector<const char*>& names, const at::Tensor& hessian, const DriftStatistics* drift,
           const InputStatistics& statistics, const Stopwatch& watch) {
    std::vector<at::Tensor> parts;
    for (const char* name : names) {
      parts.push_back(weights_.linear(name).weight.to(at::kCPU, at::kFloat));
      require_finite(parts.back(), linear_path(layer_, name));
      require_group_divides(settings_.grid.group_size, parts.back().size(1), linear_path(layer_, name));
    }
    const auto stack = at::cat(parts);
    const auto factor = factorize_hessian(hessian, settings_.order, settings_.grid.group_size, settings_.damp);
    const bool finite = factor.trouble != HessianTrouble::kNonFinite;
    AsymmetricTarget target{stack};
    if (drift != nullptr && finite) target = fit_asymmetric_target(stack, *drift, settings_.asymmetric);
    auto quantized = gptq_quantize(target.weight, factor, settings_.grid, settings_.order).weight;
    double refine_gain = 0.0;
    if (settings_.refine.rounds > 0 && factor.upper.defined()) {
      auto damped = hessian.cpu().to(at::kFloat);
      damped.diagonal().copy_(factor.importance);
      auto refined = refine(target.weight, quantized, damped, settings_.refine);
      quantized = std::move(refined.weight);
      if (refined.loss_before > 0) refine_gain = 1 - refined.loss_after / refined.loss_before;
    }
    const GridSpec plain{settings_.grid.group_size, settings_.grid.symmetric, ClipRule::kNone};
    const auto h = finite ? hessian.cpu() : at::eye(hessian.size(0), at::kDouble);
    int64_t begin = 0;
    for (size_t i = 0; i < names.size(); ++i) {
      const auto weight = slice_rows(quantized, begin, begin + parts[i].size(0));
      begin += parts[i].size(0);
      install(names[i], weight);
      auto& module = result_.modules[index_of(names[i])];
      module.weight = weight;
      module.row = {.layer = layer_,
                    .module = names[i],
                    .relative_error = relative_output_error(parts[i], dequantize(weight), h),
                    .rounding_error = relative_output_error(parts[i], dequantize(round_to_nearest(parts[i], plain)), h),
                    .input_kurtosis = statistics.excess_kurtosis,
                    .input_peak = statistics.peak_to_median,
                    .peak_channels = statistics.largest_channels,
                    .strength = target.strength,
                    .held_out_gain = target.held_out_gain,
                    .refine_gain = refine_gain,
                    .damp = factor.damp,
                    .attempts = factor.attempts,
                    .dead_inputs = factor.dead_columns,
                    .trouble = std::string(hessian_trouble_name(factor.trouble)),
                    .rounded = !factor.upper.defined()};
    }
    for (const char* name : names) {
      auto& row = result_.modules[index_of(name)].row;
      row.seconds = watch.seconds() / static_cast<double>(names.size());
      row.peak_rss_bytes = peak_rss_bytes();
    }
  }

  double block_error() const {
    const auto truth = reference_.hidden.front().to(at::kFloat);
    const double norm = truth.norm().item<double>();
    return norm > 0 ? (corpus_.hidden.front().to(at::kFloat) - truth).norm().item<double>() / norm : 0.0;
  }

  void install(const char* name, const QuantizedWeight& quantized) {
    auto& weight = weights_.linear(name).weight;
    const auto values = dequantize(quantized);
    POTSTILL_CHECK(values.sizes() == weight.sizes());
    weight = values.to(weight.options());  // another tensor: the unquantized layer keeps its own
  }

  static size_t index_of(std::string_view name) {
    for (size_t i = 0; i < kNumLinears; ++i) {
      if (name == kLinearNames[i]) return i;
    }
    POTSTILL_CHECK(false);
    return 0;
  }

  int64_t layer_;
  DecoderLayer& weights_;
  const DecoderLayer unquantized_;
  CorpusState& corpus_;
  CorpusState& reference_;
  LayerSteps steps_, reference_steps_;
  const QuantizeSettings& settings_;
  const QuantizedLayer* finished_;
  QuantizedLayer result_;
};

}  // namespace

std::string ModuleRow::path() const { return linear_path(layer, module); }

nlohmann::ordered_json ModuleRow::to_json() const {
  return {{"layer", layer},
          {"module", module},
          {"relative_error", relative_error},
          {"rounding_error", rounding_error},
          {"block_error", block_error},
          {"input_kurtosis", input_kurtosis},
          {"input_peak", input_peak},
          {"peak_channels", peak_channels},
          {"strength", strength},
          {"held_out_gain", held_out_gain},
          {"refine_gain", refine_gain},
          {"damp", damp},
          {"attempts", attempts},
          {"dead_inputs", dead_inputs},
          {"trouble", trouble},
          {"rounded", rounded},
          {"seconds", seconds},
          {"peak_rss_bytes", peak_rss_bytes}};
}

ModuleRow ModuleRow::from_json(const nlohmann::json& json) {
  return {.layer = json.at("layer"),
          .module = json.at("module"),
          .relative_error = json.at("relative_error"),
          .rounding_error = json.at("rounding_error"),
          .block_error = json.at("block_error"),
          .input_kurtosis = json.at("input_kurtosis"),
          .input_peak = json.at("input_peak"),
          .peak_channels = json.at("peak_channels"),
          .strength = json.at("strength"),
          .held_out_gain = json.at("held_out_gain"),
          .refine_gain = json.at("refine_gain"),
          .damp = json.at("damp"),
          .attempts = json.at("attempts"),
          .dead_inputs = json.at("dead_inputs"),
          .trouble = json.at("trouble"),
          .rounded = json.at("rounded"),
          .seconds = json.at("seconds"),
          .peak_rss_bytes = json.at("peak_rss_bytes")};
}

QuantizedLayer quantize_layer(int64_t layer, DecoderLayer& weights, CorpusState& corpus, CorpusState& reference,
                              const RotaryTable& rotary, const ModelConfig& config, const QuantizeSettings& settings,
                              const QuantizedLayer* finished) {
  const at::NoGradGuard no_grad;
  return LayerPass(layer, weights, corpus, reference, rotary, config, settings, finished).run();
}

QuantizedLayer round_layer(int64_t layer, const DecoderLayer& weights, const QuantizeSettings& settings) {
  QuantizedLayer result{layer, {}};
  for (const char* name : kLinearNames) {
    const Stopwatch watch;
    const std::string path = linear_path(layer, name);
    const auto weight = weights.linear(name).weight.to(at::kCPU, at::kFloat);
    require_finite(weight, path);
    require_group_divides(settings.grid.group_size, weight.size(1), path);
    QuantizedModule module{round_to_nearest(weight, settings.grid), {}};
    const double error = ((weight - dequantize(module.weight)).norm() / weight.norm()).item<double>();
    module.row = {.layer = layer,
                  .module = name,
                  .relative_error = error,
                  .rounding_error = error,
                  .rounded = true,
                  .seconds = watch.seconds()};
    result.modules.push_back(std::move(module));
  }
  return result;
}

}  // namespace potstill
