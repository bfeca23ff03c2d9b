#include "potstill/quant/quantize_layer.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <functional>
#include <optional>
#include <utility>

#include "potstill/base/check.h"
#include "potstill/base/error.h"
#include "potstill/base/machine.h"
#include "potstill/base/stopwatch.h"
#include "potstill/quant/awq_layer.h"
#include "potstill/quant/fit_linears.h"
#include "potstill/quant/layer_steps.h"
#include "potstill/quant/outliers.h"

namespace potstill {
namespace {

// Where the time of one set of linears went.
struct PhaseSeconds {
  double forward = 0.0, hessian = 0.0, factor = 0.0, codes = 0.0;
};

void require_finite(const at::Tensor& weight, const std::string& module) {
  if (at::isfinite(weight.sum()).item<bool>()) return;  // no copy for what is all but always so
  const auto bad = at::isfinite(weight).logical_not().sum().item<int64_t>();
  if (bad == 0) return;  // only the sum overflowed
  throw Error(ErrorKind::kNumeric, module + ".weight", fmt::format("holds {} values that are NaN or infinite", bad),
              "the checkpoint is damaged or its training diverged; quantize an earlier one");
}

// Every eighth batch, or the last of a few, is kept out of the fit of asymmetric calibration; one alone is not.
bool is_held_out(size_t batch, size_t num_batches) {
  return num_batches >= 8 ? batch % 8 == 7 : num_batches > 1 && batch + 1 == num_batches;
}

constexpr int64_t kLookedAt = 1024;  // tokens whose outliers go into the rows

// What one set's inputs looked like.
struct Seen {
  Seen(int64_t width, at::Device device) : statistics(width, device) {}

  void add(const at::Tensor& inputs, const at::Tensor& reference, size_t batch, size_t num_batches, bool magnitudes) {
    if (batch == 0) {
      OutlierAccumulator first(/*of_tokens=*/false);
      first.add(inputs.slice(0, 0, std::min(inputs.size(0), kLookedAt)));
      look = first.finish(0, {});
    }
    statistics.add(reference, inputs, is_held_out(batch, num_batches));
    if (!magnitudes) return;
    const auto sum = inputs.abs().sum(0, /*keepdim=*/false, at::kDouble);
    magnitude_sum = magnitude_sum.defined() ? magnitude_sum + sum : sum;
  }

  DriftStatistics statistics;
  ActivationOutliers look;
  at::Tensor magnitude_sum;  // [I] double, of |x| over tokens: for AWQ
};

class LayerPass {
 public:
  LayerPass(int64_t layer, DecoderLayer& weights, CorpusState& corpus, CorpusState& reference,
            const LayerContext& context, const QuantizedLayer* finished)
      : layer_(layer),
        weights_(weights),
        unquantized_(weights),
        corpus_(corpus),
        reference_(reference),
        steps_(weights, corpus, context.rotary, context.config),
        reference_steps_(unquantized_, reference, context.rotary, context.config),
        context_(context),
        settings_(context.settings),
        finished_(finished) {
    result_.layer = layer;
    result_.modules.resize(kNumLinears);
  }

  QuantizedLayer run() {
    if (finished_ != nullptr) install_changed(finished_->changed);
    if (settings_.true_sequential) {
      for (const auto& set : linear_sets()) step(set);
    } else {
      run_at_once();
    }
    const double error = block_error();
    if (finished_ == nullptr) {
      for (auto& module : result_.modules) module.row.block_error = error;
    } else {
      result_ = *finished_;
      for (const auto& module : result_.modules) context_.worst.add(module.row.relative_error);
    }
    return std::move(result_);
  }

 private:
  bool awq() const { return settings_.method == QuantMethod::kAwq; }
  bool asymmetric() const { return settings_.asymmetric.largest_strength > 0; }
  // q, k, v and gate, up feed the next set, which computes them itself
  static bool has_output(const LinearSet& set) { return set.names.size() == 1; }

  Seen nothing_seen(const LinearSet& set) const {
    const auto& weight = weights_.linear(set.names.front()).weight;
    return {weight.size(1), weight.device()};
  }

  // One set of linears: H over the corpus, quantize, then the output of each batch.
  void step(const LinearSet& set) {
    const Stopwatch all;
    Stopwatch watch;
    PhaseSeconds phases;
    // A norm is cheaper to take twice than to keep, and AWQ changes what went before.
    const uint64_t memory = has_output(set) && !awq() ? context_.activation_bytes : 0;
    LayerInputs inputs(corpus_.hidden.size(), memory, [&](size_t b) { return (steps_.*set.input)(b); });
    if (finished_ == nullptr) {
      Seen seen = nothing_seen(set);
      for (size_t b = 0; b < corpus_.hidden.size(); ++b) {
        const auto x = inputs.first_use(b);
        const auto reference = advance_reference(set, b);
        phases.forward += watch.lap();
        seen.add(x, asymmetric() ? reference : at::Tensor(), b, corpus_.hidden.size(), awq());
        phases.hessian += watch.lap();
      }
      fit(set, seen, phases);
    } else {
      for (const char* name : set.names) install(name, finished_->modules[linear_index(name)].weight);
      for (size_t b = 0; b < corpus_.hidden.size(); ++b) advance_reference(set, b);
    }
    watch.lap();
    for (size_t b = 0; b < corpus_.hidden.size() && has_output(set); ++b) {
      steps_.add_output(b, weights_.linear(set.names.front()), inputs.last_use(b));
    }
    phases.forward += watch.lap();
    if (finished_ == nullptr) record_seconds(set, phases, all.seconds());
  }

  void record_seconds(const LinearSet& set, const PhaseSeconds& phases, double seconds) {
    const double share = 1.0 / static_cast<double>(set.names.size());
    for (const char* name : set.names) {
      auto& row = result_.modules[linear_index(name)].row;
      row.seconds = seconds * share;
      row.seconds_forward = phases.forward * share;
      row.seconds_hessian = phases.hessian * share;
      row.seconds_factor = phases.factor * share;
      row.seconds_codes = phases.codes * share;
      row.peak_rss_bytes = peak_rss_bytes();
    }
  }

  // The set's inputs of the unquantized model for the same batch, where it is followed; undefined elsewhere.
  at::Tensor advance_reference(const LinearSet& set, size_t b) {
    if (b >= reference_steps_.num_batches()) return {};
    if (finished_ != nullptr && !has_output(set)) return {};
    const auto x = (reference_steps_.*set.input)(b);
    if (has_output(set)) reference_steps_.add_output(b, unquantized_.linear(set.names.front()), x);
    return x;
  }

  // Without true_sequential: every set sees what the unquantized linears of its block give.
  void run_at_once() {
    const auto& sets = linear_sets();
    std::vector<PhaseSeconds> phases(sets.size());
    Stopwatch watch;
    std::vector<Seen> seen;
    for (const auto& set : sets) seen.push_back(nothing_seen(set));
    for (size_t b = 0; b < corpus_.hidden.size(); ++b) {
      CorpusState batch = one_batch(corpus_, b);
      LayerSteps steps(unquantized_, batch, context_.rotary, context_.config);
      for (size_t s = 0; s < sets.size(); ++s) {
        const auto reference = advance_reference(sets[s], b);
        if (finished_ != nullptr) continue;
        const auto x = (steps.*sets[s].input)(0);
        phases[s].forward += watch.lap();
        seen[s].add(x, asymmetric() ? reference : at::Tensor(), b, corpus_.hidden.size(), false);
        phases[s].hessian += watch.lap();
        if (has_output(sets[s])) steps.add_output(0, unquantized_.linear(sets[s].names.front()), x);
      }
    }
    for (size_t s = 0; s < sets.size(); ++s) {
      if (finished_ == nullptr) {
        fit(sets[s], seen[s], phases[s]);
        const auto& p = phases[s];
        record_seconds(sets[s], p, p.forward + p.hessian + p.factor + p.codes);
      } else {
        for (const char* name : sets[s].names) install(name, finished_->modules[linear_index(name)].weight);
      }
    }
    for (size_t b = 0; b < corpus_.hidden.size(); ++b) {
      corpus_.hidden[b] = weights_.forward(corpus_.hidden[b], corpus_.batches[b], context_.rotary, context_.config);
    }
  }

  std::vector<at::Tensor> weights_of(const LinearSet& set, const GridSpec& grid) const {
    std::vector<at::Tensor> parts;
    for (const char* name : set.names) {
      parts.push_back(weights_.linear(name).weight.to(at::kCPU, at::kFloat));
      require_finite(parts.back(), linear_path(layer_, name));
      require_group_divides(grid.group_size, parts.back().size(1), linear_path(layer_, name));
    }
    return parts;
  }

  // Rows of linears with one input do not see each other: stacked, they share the factor and fill the machine.
  void fit(const LinearSet& set, const Seen& seen, PhaseSeconds& phases) {
    Stopwatch watch;
    const auto& first = weights_.linear(set.names.front()).weight;
    const GridSpec grid = settings_.grid_of(layer_, linear_index(set.names.front()), first.size(1));
    auto parts = weights_of(set, grid);
    auto hessian = seen.statistics.hessian();
    phases.factor += watch.lap();
    LinearFit fitted;
    AwqScales scales;
    if (awq()) {
      scales = fit_awq(set, seen, hessian, grid, parts, fitted);
    } else {
      fitted =
          fit_linears(parts.size() == 1 ? parts.front() : at::cat(parts), hessian, seen.statistics, grid, settings_);
    }
    phases.factor += fitted.seconds_factor;
    phases.codes += watch.lap() - fitted.seconds_factor;
    const bool finite = fitted.factor.trouble != HessianTrouble::kNonFinite;
    const GridSpec plain{grid.group_size, grid.symmetric, ClipRule::kNone, grid.bits};
    const auto h = finite ? hessian.to(at::kCPU, at::kFloat) : at::eye(hessian.size(0), at::kFloat);
    int64_t begin = 0;
    for (size_t i = 0; i < set.names.size(); ++i) {
      const size_t index = linear_index(set.names[i]);
      const auto weight = slice_rows(fitted.weight, begin, begin + parts[i].size(0));
      begin += parts[i].size(0);
      install(set.names[i], weight);
      auto& module = result_.modules[index];
      module.weight = weight;
      const at::Tensor stand_ins[] = {dequantize(weight), dequantize(round_to_nearest(parts[i], plain))};
      const auto errors = relative_output_errors(parts[i], stand_ins, h);
      module.row = {.layer = layer_,
                    .module = set.names[i],
                    .bits = grid.bits,
                    .group_size = grid.group_size,
                    .relative_error = errors[0],
                    .rounding_error = errors[1],
                    .tokens = seen.statistics.num_tokens(),
                    .input_kurtosis = seen.look.excess_kurtosis,
                    .input_peak = seen.look.channel_max_to_median,
                    .peak_channels = seen.look.largest_channels,
                    .strength = fitted.strength,
                    .held_out_gain = fitted.held_out_gain,
                    .refine_gain = fitted.refine_gain,
                    .awq_ratio = scales.ratio,
                    .awq_gain = scales.error_before > 0 ? 1 - scales.error_after / scales.error_before : 0.0,
                    .damp = fitted.factor.damp,
                    .attempts = fitted.factor.attempts,
                    .dead_inputs = fitted.factor.dead_columns,
                    .dependent_inputs = fitted.factor.dependent,
                    .trouble = std::string(hessian_trouble_name(fitted.factor.trouble)),
                    .rounded = !awq() && !fitted.factor.upper.defined()};
      if (!settings_.sensitivity.empty()) {
        module.row.sensitivity = settings_.sensitivity[static_cast<size_t>(layer_) * kNumLinears + index];
      }
      if (finite && !awq() && context_.worst.would_enter(module.row.relative_error)) {
        const Stopwatch remedies;
        measure_remedies(parts[i], hessian, seen.statistics, grid, settings_, fitted.factor, module.row);
        module.row.seconds_remedies = remedies.seconds();
      }
      context_.worst.add(module.row.relative_error);
    }
  }

  // Scales the set's inputs, rounds its weights, and gives what went before the inverse. `parts` and `hessian` become
  // those of the scaled problem, in which errors are the same.
  AwqScales fit_awq(const LinearSet& set, const Seen& seen, at::Tensor& hessian, const GridSpec& grid,
                    std::vector<at::Tensor>& parts, LinearFit& fitted) {
    const AwqPart part{.layer = weights_, .corpus = corpus_, .rotary = context_.rotary, .config = context_.config};
    const auto mean = seen.magnitude_sum / static_cast<double>(seen.statistics.num_tokens());
    AwqScales scales = find_awq_scales(part, set, parts, hessian, mean, grid);
    const auto s = scales.scales.to(at::kDouble);
    hessian = hessian / (s.unsqueeze(1) * s.unsqueeze(0)).to(hessian.device());
    for (auto& weight : parts) weight = weight * scales.scales;
    // as AWQ has it: nothing is clipped in q and k, whose product softmax makes steep
    fitted.weight = round_awq(set, parts, hessian, grid);
    fitted.factor.trouble =
        at::isfinite(hessian.sum()).item<bool>() ? HessianTrouble::kNone : HessianTrouble::kNonFinite;
    fold_inverse(set, scales.scales);
    return scales;
  }

  // 1 / s goes into the norm before q, k, v or gate, up; into the rows of v before o, and of up before down, whose
  // scales take it.
  void fold_inverse(const LinearSet& set, const at::Tensor& scales) {
    if (at::equal(scales, at::ones_like(scales))) return;
    const std::string first = set.names.front();
    if (first == "q_proj" || first == "gate_proj") {
      const std::string name = first == "q_proj" ? "input_layernorm.weight" : "post_attention_layernorm.weight";
      auto& norm = first == "q_proj" ? weights_.input_layernorm : weights_.post_attention_layernorm;
      // as the folder stores it
      const auto folded = (norm.to(at::kCPU, at::kFloat) / scales).to(at::kHalf).to(at::kFloat);
      install_changed({{name, folded}});
      result_.changed[name] = folded;
      return;
    }
    const char* before = first == "o_proj" ? "v_proj" : "up_proj";
    auto& module = result_.modules[linear_index(before)];
    module.weight.scales = divide_scales(module.weight.scales, scales);
    install(before, module.weight);
    const auto& bias = weights_.linear(before).bias;
    if (!bias.defined()) return;
    const std::string name = std::string(first == "o_proj" ? "self_attn." : "mlp.") + before + ".bias";
    const auto folded = (bias.to(at::kCPU, at::kFloat) / scales).to(at::kHalf).to(at::kFloat);
    install_changed({{name, folded}});
    result_.changed[name] = folded;
  }

  void install_changed(const std::map<std::string, at::Tensor>& changed) {
    for (const auto& [name, value] : changed) {
      at::Tensor* target = name == "input_layernorm.weight"            ? &weights_.input_layernorm
                           : name == "post_attention_layernorm.weight" ? &weights_.post_attention_layernorm
                           : name == "self_attn.v_proj.bias"           ? &weights_.v_proj.bias
                           : name == "mlp.up_proj.bias"                ? &weights_.up_proj.bias
                                                                       : nullptr;
      POTSTILL_CHECK(target != nullptr && target->defined());
      *target = value.to(target->options());
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

  int64_t layer_;
  DecoderLayer& weights_;
  const DecoderLayer unquantized_;
  CorpusState& corpus_;
  CorpusState& reference_;
  LayerSteps steps_, reference_steps_;
  const LayerContext& context_;
  const QuantizeSettings& settings_;
  const QuantizedLayer* finished_;
  QuantizedLayer result_;
};

}  // namespace

size_t linear_index(std::string_view name) {
  const auto* const found = std::ranges::find(kLinearNames, name);
  POTSTILL_CHECK(found != std::end(kLinearNames));
  return static_cast<size_t>(found - std::begin(kLinearNames));
}

std::optional<std::pair<int64_t, size_t>> linear_of_weight(std::string_view name) {
  constexpr std::string_view kPrefix = "model.layers.", kSuffix = ".weight";
  if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) return std::nullopt;
  int64_t layer = -1;
  const auto [rest, problem] = std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), layer);
  if (problem != std::errc()) return std::nullopt;
  for (size_t i = 0; i < kNumLinears; ++i) {
    if (name == linear_path(layer, kLinearNames[i]) + std::string(kSuffix)) return std::pair(layer, i);
  }
  return std::nullopt;
}

GridSpec QuantizeSettings::grid_of(int64_t layer, size_t linear, int64_t width) const {
  GridSpec spec = grid;
  if (spec.group_size == 0) spec.group_size = width;
  if (!eight_bits.empty() && eight_bits[static_cast<size_t>(layer) * kNumLinears + linear]) spec.bits = 8;
  return spec;
}

bool WorstLinears::would_enter(double relative_error) const {
  return errors_.size() < kKept || relative_error > errors_.back();
}

void WorstLinears::add(double relative_error) {
  errors_.insert(std::ranges::upper_bound(errors_, relative_error, std::greater<>()), relative_error);
  if (errors_.size() > kKept) errors_.pop_back();
}

QuantizedLayer quantize_layer(int64_t layer, DecoderLayer& weights, CorpusState& corpus, CorpusState& reference,
                              const LayerContext& context, const QuantizedLayer* finished) {
  const at::NoGradGuard no_grad;
  return LayerPass(layer, weights, corpus, reference, context, finished).run();
}

QuantizedLayer round_layer(int64_t layer, const DecoderLayer& weights, const QuantizeSettings& settings) {
  QuantizedLayer result{layer, {}};
  for (const char* name : kLinearNames) {
    const Stopwatch watch;
    const std::string path = linear_path(layer, name);
    const auto weight = weights.linear(name).weight.to(at::kCPU, at::kFloat);
    const GridSpec grid = settings.grid_of(layer, linear_index(name), weight.size(1));
    require_finite(weight, path);
    require_group_divides(grid.group_size, weight.size(1), path);
    QuantizedModule module{round_to_nearest(weight, grid), {}};
    const double norm = weight.norm().item<double>();
    const double error = norm > 0 ? (weight - dequantize(module.weight)).norm().item<double>() / norm : 0.0;
    module.row = {.layer = layer,
                  .module = name,
                  .bits = grid.bits,
                  .group_size = grid.group_size,
                  .relative_error = error,
                  .rounding_error = error,
                  .rounded = true,
                  .seconds = watch.seconds(),
                  .peak_rss_bytes = peak_rss_bytes()};
    if (!settings.sensitivity.empty()) {
      module.row.sensitivity = settings.sensitivity[static_cast<size_t>(layer) * kNumLinears + linear_index(name)];
    }
    result.modules.push_back(std::move(module));
  }
  return result;
}

}  // namespace potstill
