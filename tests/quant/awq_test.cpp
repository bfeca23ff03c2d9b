// AWQ's scales against llm-compressor's AWQModifier (tests/golden/quant/awq.py), and what they are good for.
#include "potstill/quant/awq.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/quant/lcg.h"

#include "potstill/base/rng.h"
#include "potstill/quant/awq_layer.h"
#include "potstill/quant/gptq.h"

namespace potstill {
namespace {

at::Tensor matrix(Lcg& lcg, int64_t rows, int64_t columns, double size) {
  auto result = at::empty({rows, columns});
  float* values = result.mutable_data_ptr<float>();
  for (int64_t i = 0; i < rows * columns; ++i) {
    const double value = lcg.uniform();
    values[i] = static_cast<float>(value * std::fabs(lcg.uniform()) * size);
  }
  return result;
}

// The one-layer Llama of tests/golden/quant/awq.py.
struct GoldenModel {
  explicit GoldenModel(const nlohmann::json& golden) {
    config.model_type = "llama";
    config.hidden_size = golden.at("hidden");
    config.intermediate_size = golden.at("intermediate");
    config.num_attention_heads = config.num_key_value_heads = golden.at("heads");
    config.head_dim = config.hidden_size / config.num_attention_heads;
    config.num_hidden_layers = 1;
    config.vocab_size = golden.at("vocabulary");
    config.max_position_embeddings = 64;
    config.rope_theta = 10000;
    config.rms_norm_eps = 1e-5;
    Lcg lcg(golden.at("seed"));
    const int64_t D = config.hidden_size, F = config.intermediate_size;
    const auto table = matrix(lcg, config.vocab_size, D, 2.0);
    for (auto* norm : {&layer.input_layernorm, &layer.post_attention_layernorm}) {
      *norm = at::empty({D});
      float* values = norm->mutable_data_ptr<float>();
      for (int64_t i = 0; i < D; ++i) values[i] = static_cast<float>(0.5 + 3.0 * std::pow(lcg.uniform(), 4));
    }
    const std::vector<std::pair<int64_t, int64_t>> shapes = {{D, D}, {D, D}, {D, D}, {D, D}, {F, D}, {F, D}, {D, F}};
    for (size_t i = 0; i < shapes.size(); ++i) {
      layer.linear(kLinearNames[i]).weight = matrix(lcg, shapes[i].first, shapes[i].second, 0.3);
    }
    std::vector<std::vector<int32_t>> sequences(golden.at("sequences").get<size_t>());
    for (auto& sequence : sequences) {
      for (int64_t i = 0; i < golden.at("length").get<int64_t>(); ++i) {
        sequence.push_back(static_cast<int32_t>((lcg.uniform() + 1) * 64));
      }
    }
    corpus.batches = {pack_sequences(sequences)};
    corpus.hidden = {table.index_select(0, corpus.batches[0].token_ids)};
    corpus.sequence_of = {{0, 1, 2, 3}};
    rotary = make_rotary_table(config, 64, at::kCPU);
  }

  ModelConfig config;
  DecoderLayer layer;
  CorpusState corpus;
  RotaryTable rotary;
};

// compressed-tensors' asymmetric grid: scale = range / 15, zero = −8 − least / scale, both with 0 in the range.
at::Tensor round_as_compressed_tensors(const at::Tensor& weight, int64_t group_size) {
  const auto groups = weight.view({weight.size(0), -1, group_size});
  const auto least = groups.amin(2, /*keepdim=*/true).clamp_max(0),
             most = groups.amax(2, /*keepdim=*/true).clamp_min(0);
  const auto scales = (most - least) / 15;
  const auto zeros = at::round((-8 - least / scales).clamp(-8, 7));
  return ((at::round(groups / scales + zeros).clamp(-8, 7) - zeros) * scales).view(weight.sizes());
}

double mean_squared(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).square().mean(at::kDouble).item<double>();
}

TEST(AwqGolden, ScalesAndLossesEqualLlmCompressors) {
  std::ifstream file(POTSTILL_SOURCE_DIR "/tests/golden/quant/awq.json");
  const auto golden = nlohmann::json::parse(file);
  GoldenModel model(golden);
  const int64_t group_size = golden.at("group_size");
  const auto rounding = [&](const at::Tensor& weight) { return round_as_compressed_tensors(weight, group_size); };
  LayerSteps steps(model.layer, model.corpus, model.rotary, model.config);
  ASSERT_EQ(golden.at("mappings").size(), linear_sets().size());
  for (size_t set = 0; set < linear_sets().size(); ++set) {
    const auto& names = linear_sets()[set].names;
    const auto& expected = golden.at("mappings")[set];
    SCOPED_TRACE(expected.at("smooth").get<std::string>());
    const auto x = (steps.*linear_sets()[set].input)(0);
    const auto mean = x.abs().mean(0, /*keepdim=*/false, at::kDouble);
    std::vector<at::Tensor> weights;
    for (const char* name : names) weights.push_back(model.layer.linear(name).weight);
    const auto output = [&](const std::vector<at::Tensor>& candidates) {
      DecoderLayer layer = model.layer;
      for (size_t i = 0; i < names.size(); ++i) layer.linear(names[i]).weight = candidates[i];
      const LayerSteps other(layer, model.corpus, model.rotary, model.config);
      if (names.size() == 1) return at::mm(x, candidates.front().t());
      return set == 0 ? layer.o_proj.forward(other.attention_output(0))
                      : layer.down_proj.forward(other.mlp_activations(0));
    };
    const auto truth = output(weights);
    std::vector<double> losses;
    const auto scales = search_awq_scales(weights, mean, group_size, rounding, [&](const auto& candidates) {
      losses.push_back(mean_squared(output(candidates), truth));
      return losses.back();
    });
    const auto their_losses = expected.at("losses").get<std::vector<double>>();
    ASSERT_EQ(losses.size(), their_losses.size());
    // fp32 products in another order, and the rounding of a code on the edge: 1 % of a loss
    for (size_t i = 0; i < losses.size(); ++i) EXPECT_NEAR(losses[i], their_losses[i], 0.01 * their_losses[i]) << i;
    const auto theirs = expected.at("scales").get<std::vector<float>>();
    const auto magnitudes = expected.at("mean_magnitude").get<std::vector<float>>();
    for (size_t i = 0; i < theirs.size(); ++i) {
      EXPECT_NEAR(mean[static_cast<int64_t>(i)].item<double>(), magnitudes[i], 1e-5 * magnitudes[i]);
      EXPECT_NEAR(scales.scales[static_cast<int64_t>(i)].item<float>(), theirs[i], 1e-4f * theirs[i])
          << "channel " << i;
    }
    if (set == 0 || set == 2) {
      // and what the quantizer itself calls finds scales that help, under its own grid
      const GridSpec grid{group_size, true, ClipRule::kNone};
      const auto hessian = at::mm(x.t(), x).to(at::kDouble);
      const AwqPart part{model.layer, model.corpus, model.rotary, model.config};
      const auto ours = find_awq_scales(part, linear_sets()[set], weights, hessian, mean, grid);
      EXPECT_LT(ours.error_after, ours.error_before);
    }
    if (names.size() == 1) steps.add_output(0, model.layer.linear(names.front()), x);
  }
}

TEST(Awq, TakesPlainRoundingWhereNoScaleHelps) {
  const auto weight = at::ones({4, 32});
  const auto scales = search_awq_scales(
      std::vector<at::Tensor>{weight}, at::ones({32}), 32, [](const at::Tensor& w) { return w; },
      [](const auto&) { return 1.0; });
  EXPECT_TRUE(at::equal(scales.scales, at::ones({32})));
  EXPECT_EQ(scales.error_after, scales.error_before);
  EXPECT_FALSE(scales.duo);
}

TEST(Awq, DividedScalesStayFiniteHalves) {
  const auto scales = at::tensor({1.0f, -2.0f, 3e-8f, 6e4f}).view({2, 2});
  const auto divided = divide_scales(scales, at::tensor({3.0f, 1e-3f}));
  const auto halves = divided.to(at::kHalf).to(at::kFloat);
  EXPECT_TRUE(at::equal(divided, halves));
  EXPECT_TRUE((divided != 0).all().item<bool>());
  EXPECT_TRUE(at::isfinite(divided).all().item<bool>());
  EXPECT_LT(divided[0][1].item<float>(), 0.0f);
}

}  // namespace
}  // namespace potstill
