#include "potstill/quant/sensitivity.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "potstill/base/check.h"
#include "potstill/base/error.h"
#include "potstill/base/log.h"
#include "potstill/quant/layer_steps.h"

namespace potstill {
namespace {

constexpr double kScaleBits = 16;

struct LinearShape {
  int64_t rows = 0, columns = 0;
  double weights() const { return static_cast<double>(rows) * static_cast<double>(columns); }
};

std::array<LinearShape, kNumLinears> shapes_of(const ModelConfig& c) {
  const int64_t D = c.hidden_size, F = c.intermediate_size;
  return {{{c.q_size(), D}, {c.kv_size(), D}, {c.kv_size(), D}, {D, c.q_size()}, {F, D}, {F, D}, {D, F}}};
}

double bits_of(const LinearShape& shape, const GridSpec& grid, bool eight) {
  const double groups = static_cast<double>(grid.group_size == 0 ? 1 : shape.columns / grid.group_size);
  const double code = static_cast<double>(eight ? 8 : grid.bits);
  return shape.weights() * code +
         static_cast<double>(shape.rows) * groups * (kScaleBits + (grid.symmetric ? 0.0 : code));
}

at::Tensor rounded(const at::Tensor& weight, const GridSpec& grid) {
  GridSpec spec{grid.group_size == 0 ? weight.size(1) : grid.group_size, grid.symmetric, ClipRule::kMse, grid.bits};
  return dequantize(round_to_nearest(weight.to(at::kCPU, at::kFloat), spec)).to(weight.options());
}

// The block's output on every batch.
std::vector<at::Tensor> outputs(const DecoderLayer& layer, const CorpusState& corpus, const RotaryTable& rotary,
                                const ModelConfig& config) {
  std::vector<at::Tensor> result;
  for (size_t b = 0; b < corpus.batches.size(); ++b) {
    result.push_back(layer.forward(corpus.hidden[b], corpus.batches[b], rotary, config));
  }
  return result;
}

}  // namespace

std::vector<double> measure_sensitivity(const ModelPackage& model, std::span<const std::vector<TokenId>> sequences,
                                        const GridSpec& grid, const LayerStreamOptions& stream) {
  const at::NoGradGuard no_grad;
  std::vector<double> effects(static_cast<size_t>(model.config.num_hidden_layers) * kNumLinears, 0.0);
  CorpusState corpus = embed_corpus(model, sequences, stream);
  Progress progress("sensitivity", model.config.num_hidden_layers, "layers");
  run_layers(model, corpus, stream, 0, model.config.num_hidden_layers,
             [&](int64_t layer, DecoderLayer& weights, CorpusState& state, const RotaryTable& rotary) {
               const auto truth = outputs(weights, state, rotary, model.config);
               for (const auto& set : linear_sets()) {
                 DecoderLayer changed = weights;
                 for (const char* name : set.names)
                   changed.linear(name).weight = rounded(weights.linear(name).weight, grid);
                 const auto got = outputs(changed, state, rotary, model.config);
                 // Token by token: a few have states hundreds of times as long as the others', which a norm would undo.
                 double effect = 0.0;
                 int64_t tokens = 0;
                 for (size_t b = 0; b < truth.size(); ++b) {
                   const auto error = (got[b] - truth[b]).to(at::kFloat).square().sum(1);
                   const auto length = truth[b].to(at::kFloat).square().sum(1).clamp_min(1e-12);
                   effect += error.div(length).sum(at::kDouble).item<double>();
                   tokens += error.size(0);
                 }
                 for (const char* name : set.names) {
                   effects[static_cast<size_t>(layer) * kNumLinears + linear_index(name)] =
                       effect / static_cast<double>(tokens);
                 }
               }
               state.hidden = truth;
               progress.advance();
             });
  progress.finish();
  return effects;
}

double bits_per_weight(const ModelConfig& config, const GridSpec& grid, const std::vector<bool>& eight_bits) {
  const auto shapes = shapes_of(config);
  double bits = 0.0, weights = 0.0;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    for (size_t i = 0; i < kNumLinears; ++i) {
      bits += bits_of(shapes[i], grid, !eight_bits.empty() && eight_bits[static_cast<size_t>(layer) * kNumLinears + i]);
      weights += shapes[i].weights();
    }
  }
  return bits / weights;
}

std::vector<bool> choose_eight_bits(const ModelConfig& config, const GridSpec& grid,
                                    const std::vector<double>& sensitivity, double target_bpw) {
  const auto shapes = shapes_of(config);
  const auto layers = static_cast<size_t>(config.num_hidden_layers);
  POTSTILL_CHECK(sensitivity.size() == layers * kNumLinears);
  std::vector<bool> eight(layers * kNumLinears, false);
  const double least = bits_per_weight(config, grid, eight);
  if (target_bpw < least) {
    throw Error(ErrorKind::kUsage, "quantize",
                fmt::format("target_bpw is {} but {} bits in groups of {} take {:.3f}, scales counted", target_bpw,
                            grid.bits, grid.group_size, least),
                "ask for more bits, or for larger groups");
  }
  struct Candidate {
    size_t layer = 0;
    const LinearSet* set = nullptr;
    double effect_per_weight = 0.0, extra_bits = 0.0;
  };
  std::vector<Candidate> candidates;
  double all_weights = 0.0;
  for (size_t layer = 0; layer < layers; ++layer) {
    for (const auto& set : linear_sets()) {
      Candidate candidate{.layer = layer, .set = &set};
      double weights = 0.0;
      for (const char* name : set.names) {
        const auto& shape = shapes[linear_index(name)];
        weights += shape.weights();
        candidate.extra_bits += bits_of(shape, grid, true) - bits_of(shape, grid, false);
      }
      candidate.effect_per_weight = sensitivity[layer * kNumLinears + linear_index(set.names.front())] / weights;
      all_weights += weights;
      candidates.push_back(candidate);
    }
  }
  std::ranges::stable_sort(candidates, std::greater<>(), &Candidate::effect_per_weight);
  double left = (target_bpw - least) * all_weights;
  for (const auto& candidate : candidates) {
    if (candidate.extra_bits > left) continue;
    left -= candidate.extra_bits;
    for (const char* name : candidate.set->names) eight[candidate.layer * kNumLinears + linear_index(name)] = true;
  }
  return eight;
}

}  // namespace potstill
