#include "potstill/quant/quantize_layer.h"

#include <fmt/format.h>

#include <chrono>
#include <functional>
#include <iterator>
#include <utility>

#include "potstill/base/check.h"
#include "potstill/base/error.h"

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
// between where memory allows.
class LayerInputs {
 public:
  LayerInputs(size_t num_batches, bool keep, std::function<at::Tensor(size_t)> compute)
      : kept_(num_batches), keep_(keep), compute_(std::move(compute)) {}

  at::Tensor first_use(size_t batch) {
    auto inputs = compute_(batch);
    if (keep_) kept_[batch] = inputs;
    return inputs;
  }
  at::Tensor last_use(size_t batch) {
    return kept_[batch].defined() ? std::exchange(kept_[batch], at::Tensor()) : compute_(batch);
  }

 private:
  std::vector<at::Tensor> kept_;
  bool keep_;
  std::function<at::Tensor(size_t)> compute_;
};

class LayerPass {
 public:
  LayerPass(int64_t layer, DecoderLayer& weights, CorpusState& corpus, const RotaryTable& rotary,
            const ModelConfig& config, const QuantizeSettings& settings, const QuantizedLayer* finished)
      : layer_(layer),
        weights_(weights),
        corpus_(corpus),
        rotary_(rotary),
        config_(config),
        settings_(settings),
        finished_(finished) {
    result_.layer = layer;
    result_.modules.resize(kNumLinears);
  }

  QuantizedLayer run() {
    auto& hidden = corpus_.hidden;
    const auto attention_input = [&](size_t b) { return weights_.attention_input(hidden[b], config_); };
    const auto mlp_input = [&](size_t b) { return weights_.mlp_input(hidden[b], config_); };
    // a norm is cheaper to take twice than to keep
    step({"q_proj", "k_proj", "v_proj"}, LayerInputs(hidden.size(), false, attention_input),
         [](size_t, const at::Tensor&) {});
    step({"o_proj"},
         inputs(config_.q_size(),
                [&](size_t b) {
                  const auto x = attention_input(b);
                  return weights_.attention(weights_.q_proj.forward(x), weights_.k_proj.forward(x),
                                            weights_.v_proj.forward(x), corpus_.batches[b], rotary_, config_);
                }),
         [&](size_t b, const at::Tensor& x) { hidden[b] = hidden[b] + weights_.o_proj.forward(x); });
    step({"gate_proj", "up_proj"}, LayerInputs(hidden.size(), false, mlp_input), [](size_t, const at::Tensor&) {});
    step({"down_proj"},
         inputs(config_.intermediate_size,
                [&](size_t b) {
                  const auto x = mlp_input(b);
                  return swiglu(weights_.gate_proj.forward(x), weights_.up_proj.forward(x));
                }),
         [&](size_t b, const at::Tensor& x) { hidden[b] = hidden[b] + weights_.down_proj.forward(x); });
    return std::move(result_);
  }

 private:
  LayerInputs inputs(int64_t width, std::function<at::Tensor(size_t)> compute) const {
    uint64_t bytes = 0;
    for (const auto& hidden : corpus_.hidden) {
      bytes += static_cast<uint64_t>(hidden.size(0) * width) * hidden.element_size();
    }
    return {corpus_.hidden.size(), bytes <= settings_.activation_bytes, std::move(compute)};
  }

  // One set of linears that share their input: H over the corpus, quantize, then the output of each batch.
  void step(const std::vector<const char*>& names, LayerInputs inputs,
            const std::function<void(size_t, const at::Tensor&)>& output) {
    const Stopwatch watch;
    const auto& first = weights_.linear(names.front()).weight;
    const bool has_output = names.size() == 1;  // q, k, v and gate, up feed the next step, which computes them itself
    if (finished_ == nullptr) {
      HessianAccumulator hessian(first.size(1), first.device());
      for (size_t b = 0; b < corpus_.hidden.size(); ++b) hessian.add(inputs.first_use(b));
      quantize(names, hessian.finish(), watch);
    } else {
      for (const char* name : names) install(name, finished_->modules[index_of(name)]);
    }
    for (size_t b = 0; b < corpus_.hidden.size() && has_output; ++b) output(b, inputs.last_use(b));
  }

  // Rows of linears with one input do not see each other: stacked, they share the factor and fill the machine.
  void quantize(const std::vector<const char*>& names, const at::Tensor& hessian, const Stopwatch& watch) {
    std::vector<at::Tensor> stack;
    for (const char* name : names) {
      stack.push_back(weights_.linear(name).weight.to(at::kCPU, at::kFloat));
      require_finite(stack.back(), linear_path(layer_, name));
      require_group_divides(settings_.grid.group_size, stack.back().size(1), linear_path(layer_, name));
    }
    const auto factor = factorize_hessian(hessian, settings_.order, settings_.grid.group_size, settings_.damp);
    const auto quantized = gptq_quantize(at::cat(stack), factor, settings_.grid, settings_.order).weight;
    const GridSpec plain{settings_.grid.group_size, settings_.grid.symmetric, ClipRule::kNone};
    const bool finite = factor.trouble != HessianTrouble::kNonFinite;
    const auto h = finite ? hessian.cpu() : at::eye(hessian.size(0), at::kDouble);
    int64_t begin = 0;
    for (size_t i = 0; i < names.size(); ++i) {
      QuantizedModule module{slice_rows(quantized, begin, begin + stack[i].size(0)), {}};
      begin += stack[i].size(0);
      module.row = {.layer = layer_,
                    .module = names[i],
                    .relative_error = relative_output_error(stack[i], dequantize(module.weight), h),
                    .rounding_error = relative_output_error(stack[i], dequantize(round_to_nearest(stack[i], plain)), h),
                    .damp = factor.damp,
                    .attempts = factor.attempts,
                    .dead_inputs = factor.dead_columns,
                    .trouble = std::string(hessian_trouble_name(factor.trouble)),
                    .rounded = !factor.upper.defined()};
      install(names[i], std::move(module));
    }
    for (const char* name : names) {
      result_.modules[index_of(name)].row.seconds = watch.seconds() / static_cast<double>(names.size());
    }
  }

  void install(const char* name, QuantizedModule module) {
    auto& weight = weights_.linear(name).weight;
    const auto values = dequantize(module.weight);
    POTSTILL_CHECK(values.sizes() == weight.sizes());
    weight = values.to(weight.options());
    result_.modules[index_of(name)] = std::move(module);
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
  CorpusState& corpus_;
  const RotaryTable& rotary_;
  const ModelConfig& config_;
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
          {"damp", damp},
          {"attempts", attempts},
          {"dead_inputs", dead_inputs},
          {"trouble", trouble},
          {"rounded", rounded},
          {"seconds", seconds}};
}

ModuleRow ModuleRow::from_json(const nlohmann::json& json) {
  return {.layer = json.at("layer"),
          .module = json.at("module"),
          .relative_error = json.at("relative_error"),
          .rounding_error = json.at("rounding_error"),
          .damp = json.at("damp"),
          .attempts = json.at("attempts"),
          .dead_inputs = json.at("dead_inputs"),
          .trouble = json.at("trouble"),
          .rounded = json.at("rounded"),
          .seconds = json.at("seconds")};
}

QuantizedLayer quantize_layer(int64_t layer, DecoderLayer& weights, CorpusState& corpus, const RotaryTable& rotary,
                              const ModelConfig& config, const QuantizeSettings& settings,
                              const QuantizedLayer* finished) {
  const at::NoGradGuard no_grad;
  return LayerPass(layer, weights, corpus, rotary, config, settings, finished).run();
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
