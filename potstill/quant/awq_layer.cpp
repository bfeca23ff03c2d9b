#include "potstill/quant/awq_layer.h"

#include <string_view>

#include "potstill/base/check.h"
#include "potstill/quant/gptq.h"

namespace potstill {
namespace {

constexpr int64_t kSampleTokens = 1024;  // 40 runs of a half layer over them a layer

double mean_squared_error(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).square().mean(at::kDouble).item<double>();
}

// Output of the attention or of the MLP with these linears in place of the layer's own, on the first sequences.
at::Tensor part_output(const AwqPart& part, const LinearSet& set, const std::vector<at::Tensor>& weights) {
  DecoderLayer layer = part.layer;
  for (size_t i = 0; i < set.names.size(); ++i) {
    auto& own = layer.linear(set.names[i]).weight;
    own = weights[i].to(own.options());
  }
  CorpusState batch = leading_sequences(part.corpus, kSampleTokens);
  const LayerSteps steps(layer, batch, part.rotary, part.config);
  const bool attention = std::string_view(set.names.front()) == "q_proj";
  const auto x = attention ? steps.attention_output(0) : steps.mlp_activations(0);
  return (attention ? layer.o_proj : layer.down_proj).forward(x).to(at::kFloat);
}

}  // namespace

AwqScales find_awq_scales(const AwqPart& part, const LinearSet& set, const std::vector<at::Tensor>& weights,
                          const at::Tensor& hessian, const at::Tensor& mean_magnitude, const GridSpec& grid) {
  AwqScales none{.scales = at::ones({mean_magnitude.size(0)}, at::kFloat)};
  if (!at::isfinite(mean_magnitude).all().item<bool>()) return none;
  const std::string_view first = set.names.front();
  if (first == "o_proj" && part.config.num_key_value_heads != part.config.num_attention_heads) return none;
  const GridSpec plain{grid.group_size, grid.symmetric, ClipRule::kNone, grid.bits};
  const AwqRounding rounding = [&](const at::Tensor& weight) {
    return dequantize(round_to_nearest(weight.to(at::kCPU), plain));
  };
  if (set.names.size() > 1) {
    const auto truth = part_output(part, set, weights);
    return search_awq_scales(weights, mean_magnitude, grid.group_size, rounding, [&](const auto& candidates) {
      return mean_squared_error(part_output(part, set, candidates), truth);
    });
  }
  const auto h = hessian.to(at::kCPU, at::kFloat);
  return search_awq_scales(weights, mean_magnitude, grid.group_size, rounding, [&](const auto& candidates) {
    const auto error = candidates.front() - weights.front();
    return (at::mm(error, h) * error).sum(at::kDouble).template item<double>() / static_cast<double>(error.size(0));
  });
}

QuantizedWeight round_awq(const LinearSet& set, const std::vector<at::Tensor>& weights, const at::Tensor& hessian,
                          const GridSpec& grid) {
  const auto importance = hessian.diagonal().to(at::kCPU, at::kFloat).contiguous();
  const bool finite = at::isfinite(importance).all().item<bool>();
  std::vector<at::Tensor> codes, scales, zeros;
  for (size_t i = 0; i < weights.size(); ++i) {
    GridSpec spec = grid;
    const std::string_view name = set.names[i];
    if (name == "q_proj" || name == "k_proj" || !finite) spec.clip = ClipRule::kNone;
    const auto rounded = round_to_nearest(weights[i], spec, importance);
    codes.push_back(rounded.codes);
    scales.push_back(rounded.scales);
    zeros.push_back(rounded.zeros);
  }
  return {at::cat(codes), at::cat(scales), at::cat(zeros), grid.symmetric, grid.bits};
}

at::Tensor divide_scales(const at::Tensor& scales, const at::Tensor& by) {
  POTSTILL_CHECK(scales.size(0) == by.size(0));
  const auto divided = scales / by.unsqueeze(1);
  const auto magnitude = divided.abs().to(at::kHalf).to(at::kFloat).clamp(0x1p-24, 65504.0);
  return at::where(divided < 0, -magnitude, magnitude).contiguous();
}

}  // namespace potstill
