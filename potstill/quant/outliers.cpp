#include "potstill/quant/outliers.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "potstill/base/check.h"
#include "potstill/quant/layer_steps.h"

namespace potstill {
namespace {

constexpr int64_t kCrestGroup = 64;
constexpr int kPowerSteps = 100;
constexpr double kPowerTolerance = 1e-6;  // relative change of the norm at which the iteration ends

double total_of(const at::Tensor& x) { return x.sum(at::kDouble).item<double>(); }

at::Tensor at_least_tiny(const at::Tensor& x) { return x.clamp_min(1e-30); }

// E[(x−μ)⁴] / σ⁴ − 3 out of the raw moments' sums.
double kurtosis_of(double count, const double (&sums)[4]) {
  const double m1 = sums[0] / count, m2 = sums[1] / count, m3 = sums[2] / count, m4 = sums[3] / count;
  const double variance = m2 - m1 * m1;
  if (!(variance > 0)) return 0.0;
  return (m4 - 4 * m1 * m3 + 6 * m1 * m1 * m2 - 3 * m1 * m1 * m1 * m1) / (variance * variance) - 3;
}

// Powers in fp32, sums in double. d: x less a shift near its mean, so that a large mean costs no digits.
void add_moments(const at::Tensor& d, double& count, double (&sums)[4]) {
  auto power = d;
  count += static_cast<double>(d.numel());
  for (double& moment : sums) {
    moment += total_of(power);
    if (&moment != &sums[3]) power = power * d;
  }
}

// Power iteration on the smaller Gram matrix, whose product is made once: a step then reads far less than the weight.
double spectral_norm(const at::Tensor& weight) {
  const auto w = weight.to(at::kFloat);
  const auto gram = w.size(0) < w.size(1) ? at::mm(w, w.t()) : at::mm(w.t(), w);
  // A start with something of every direction, the same each time.
  auto v = at::linspace(1.0, 2.0, gram.size(1), w.options());
  v = v / v.norm();
  double norm = 0.0;
  for (int step = 0; step < kPowerSteps; ++step) {
    v = at::mv(gram, v);
    const double squared = v.norm().item<double>();
    if (!(squared > 0)) return 0.0;
    v = v / squared;
    const double next = std::sqrt(squared);
    const bool settled = std::fabs(next - norm) < kPowerTolerance * next;
    norm = next;
    if (settled) break;
  }
  return norm;
}

struct StepAccumulators {
  OutlierAccumulator sets[4], output;
};
constexpr const char* kTensorNames[] = {"attention_input", "attention_output", "mlp_input", "mlp_activations"};

}  // namespace

void OutlierAccumulator::add(const at::Tensor& inputs) {
  POTSTILL_CHECK(inputs.dim() == 2);
  if (inputs.numel() == 0) return;
  const auto x = inputs.to(at::kFloat);
  if (tokens_ == 0) shift_ = total_of(x) / static_cast<double>(x.numel());
  add_moments(x - shift_, count_, sums_);
  const auto max = x.amax(0), min = x.amin(0);
  channel_max_ = channel_max_.defined() ? at::maximum(channel_max_, max) : max;
  channel_min_ = channel_min_.defined() ? at::minimum(channel_min_, min) : min;
  if (of_tokens_) add_tokens(x);
  tokens_ += x.size(0);
}

void OutlierAccumulator::add_tokens(const at::Tensor& x) {
  const auto magnitudes = x.abs();
  token_ratio_ += total_of(magnitudes.amax(1) / at_least_tiny(std::get<0>(magnitudes.median(1))));
  const auto centred = x - x.mean(1, /*keepdim=*/true);
  const auto squares = centred.square();
  const auto variance = at_least_tiny(squares.mean(1, /*keepdim=*/true));
  token_kurtosis_ += total_of((squares / variance).square().mean(1) - 3.0);
  token_above_ += total_of((squares > 36.0 * variance).sum(1));
  if (tokens_ == 0) {
    const auto flat = magnitudes.flatten();
    const auto rank =
        std::clamp<int64_t>(static_cast<int64_t>(0.999 * static_cast<double>(flat.numel())), 1, flat.numel());
    quantile_ = std::get<0>(flat.kthvalue(rank)).item<double>();
  }
}

ActivationOutliers OutlierAccumulator::finish(int64_t layer, std::string tensor) const {
  POTSTILL_CHECK(tokens_ > 0);
  ActivationOutliers found{
      .layer = layer, .tensor = std::move(tensor), .tokens = tokens_, .channels = channel_max_.size(0)};
  found.excess_kurtosis = kurtosis_of(count_, sums_);
  const auto n = static_cast<double>(tokens_);
  found.token_kurtosis = token_kurtosis_ / n;
  found.token_max_to_median = token_ratio_ / n;
  found.token_above_6_sigma = token_above_ / n;
  found.quantile_999 = quantile_;
  const double off = sums_[0] / count_, mean = shift_ + off, variance = sums_[1] / count_ - off * off;
  const auto reach = at::maximum(channel_max_ - mean, mean - channel_min_);
  found.channels_above_6_sigma = (reach.square() > 36.0 * variance).sum().item<int64_t>();
  const auto magnitude = at::maximum(channel_max_.abs(), channel_min_.abs());
  found.max_abs = magnitude.max().item<double>();
  found.channel_max_to_median = (magnitude.max() / at_least_tiny(magnitude.median())).item<double>();
  const auto order = std::get<1>(magnitude.topk(std::min<int64_t>(3, magnitude.size(0)))).cpu();
  for (int64_t i = 0; i < order.numel(); ++i) found.largest_channels.push_back(order[i].item<int64_t>());
  return found;
}

WeightOutliers measure_weight(const std::string& name, const at::Tensor& weight) {
  POTSTILL_CHECK(weight.dim() == 2 && weight.numel() > 0);
  const auto w = weight.to(at::kCPU, at::kFloat);
  WeightOutliers found{.name = name};
  double count = 0.0, sums[4] = {};
  add_moments(w, count, sums);  // a weight's mean is all but zero
  found.excess_kurtosis = kurtosis_of(count, sums);
  found.max_abs = w.abs().max().item<double>();
  double crests = 0.0, groups = 0.0;
  for (int64_t begin = 0; begin < w.size(1); begin += kCrestGroup) {
    const auto group = w.slice(1, begin, std::min(begin + kCrestGroup, w.size(1)));
    const auto crest = group.abs().amax(1) / at_least_tiny(group.square().mean(1).sqrt());
    crests += total_of(crest);
    groups += static_cast<double>(w.size(0));
    found.largest_crest = std::max(found.largest_crest, crest.max().item<double>());
  }
  found.crest_factor = crests / groups;
  found.spectral_norm = spectral_norm(w);
  if (found.spectral_norm > 0) found.stable_rank = sums[1] / (found.spectral_norm * found.spectral_norm);
  return found;
}

OutlierReport measure_outliers(const ModelPackage& model, std::span<const std::vector<TokenId>> sequences,
                               const LayerStreamOptions& stream) {
  const at::NoGradGuard no_grad;
  OutlierReport report;
  CorpusState corpus = embed_corpus(model, sequences, stream);
  run_layers(model, corpus, stream, 0, model.config.num_hidden_layers,
             [&](int64_t layer, DecoderLayer& weights, CorpusState& state, const RotaryTable& rotary) {
               for (const char* name : kLinearNames) {
                 report.weights.push_back(measure_weight(linear_path(layer, name), weights.linear(name).weight));
               }
               StepAccumulators seen;
               LayerSteps steps(weights, state, rotary, model.config);
               for (size_t b = 0; b < state.hidden.size(); ++b) {
                 for (size_t s = 0; s < linear_sets().size(); ++s) {
                   const auto& set = linear_sets()[s];
                   const auto x = (steps.*set.input)(b);
                   seen.sets[s].add(x);
                   if (set.names.size() == 1) steps.add_output(b, weights.linear(set.names.front()), x);
                 }
                 seen.output.add(state.hidden[b]);
               }
               if (state.hidden.empty()) return;
               for (size_t s = 0; s < linear_sets().size(); ++s) {
                 report.activations.push_back(seen.sets[s].finish(layer, kTensorNames[s]));
               }
               report.activations.push_back(seen.output.finish(layer, "block_output"));
             });
  return report;
}

nlohmann::ordered_json ActivationOutliers::to_json() const {
  return {{"layer", layer},
          {"tensor", tensor},
          {"tokens", tokens},
          {"channels", channels},
          {"excess_kurtosis", excess_kurtosis},
          {"token_kurtosis", token_kurtosis},
          {"token_max_to_median", token_max_to_median},
          {"channel_max_to_median", channel_max_to_median},
          {"channels_above_6_sigma", channels_above_6_sigma},
          {"token_above_6_sigma", token_above_6_sigma},
          {"max_abs", max_abs},
          {"quantile_999", quantile_999},
          {"largest_channels", largest_channels}};
}

nlohmann::ordered_json WeightOutliers::to_json() const {
  return {{"name", name},
          {"excess_kurtosis", excess_kurtosis},
          {"max_abs", max_abs},
          {"crest_factor", crest_factor},
          {"largest_crest", largest_crest},
          {"spectral_norm", spectral_norm},
          {"stable_rank", stable_rank}};
}

nlohmann::ordered_json OutlierReport::to_json() const {
  nlohmann::ordered_json json = {{"activations", nlohmann::ordered_json::array()},
                                 {"weights", nlohmann::ordered_json::array()}};
  for (const auto& row : activations) json["activations"].push_back(row.to_json());
  for (const auto& row : weights) json["weights"].push_back(row.to_json());
  return json;
}

}  // namespace potstill
