// Gradients written by hand against autograd over the same formulas spelled out in plain tensor operations.
#include "potstill/nn/decoder_layer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/nn/tiny_model.h"
#include "torch/csrc/autograd/autograd.h"

#include "potstill/nn/transformer.h"

namespace potstill {
namespace {

using Sequences = std::vector<std::vector<int32_t>>;

at::Tensor plain_rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return x * (x.square().mean(-1, true) + eps).rsqrt() * weight;
}

at::Tensor plain_linear(const Linear& linear, const at::Tensor& x) {
  auto y = at::mm(x, linear.weight.t());
  if (linear.bias.defined()) y = y + linear.bias;
  if (linear.lora) y = y + linear.lora->scale * at::mm(at::mm(x, linear.lora->a.t()), linear.lora->b.t());
  return y;
}

at::Tensor plain_rotary(const at::Tensor& heads, const at::Tensor& positions, const RotaryTable& rotary) {
  const auto cos = rotary.cos.index_select(0, positions).unsqueeze(1),
             sin = rotary.sin.index_select(0, positions).unsqueeze(1);
  const auto halves = heads.chunk(2, -1);
  return at::cat({halves[0] * cos - halves[1] * sin, halves[1] * cos + halves[0] * sin}, -1);
}

at::Tensor plain_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const PackedBatch& batch,
                           const ModelConfig& config) {
  const auto sequence =
      at::repeat_interleave(at::arange(batch.num_sequences()), at::tensor(batch.offsets, at::kLong).diff());
  const auto distance = batch.positions.unsqueeze(1) - batch.positions.unsqueeze(0);
  auto visible = sequence.unsqueeze(1).eq(sequence.unsqueeze(0)).logical_and(distance.ge(0));
  if (config.sliding_window > 0) visible = visible.logical_and(distance.lt(config.sliding_window));
  const int64_t group = config.num_attention_heads / config.num_key_value_heads;
  const auto keys = k.repeat_interleave(group, 1).permute({1, 2, 0}),
             values = v.repeat_interleave(group, 1).transpose(0, 1);
  auto scores = at::matmul(q.transpose(0, 1), keys) / std::sqrt(static_cast<double>(config.head_dim));
  scores = scores.masked_fill(visible.logical_not(), -INFINITY);
  return at::matmul(scores.softmax(-1), values).transpose(0, 1).flatten(1);
}

at::Tensor plain_layer(const DecoderLayer& layer, const at::Tensor& hidden, const PackedBatch& batch,
                       const RotaryTable& rotary, const ModelConfig& config) {
  const double eps = config.rms_norm_eps;
  const auto x = plain_rms_norm(hidden, layer.input_layernorm, eps);
  const auto heads = [&](const Linear& linear, const at::Tensor& norm, bool rotate) {
    auto y = plain_linear(linear, x).unflatten(1, {-1, config.head_dim});
    if (norm.defined()) y = plain_rms_norm(y, norm, eps);
    return rotate ? plain_rotary(y, batch.positions, rotary) : y;
  };
  const auto attention =
      plain_attention(heads(layer.q_proj, layer.q_norm, true), heads(layer.k_proj, layer.k_norm, true),
                      heads(layer.v_proj, {}, false), batch, config);
  const auto h = hidden + plain_linear(layer.o_proj, attention);
  const auto m = plain_rms_norm(h, layer.post_attention_layernorm, eps);
  const auto gate = plain_linear(layer.gate_proj, m);
  return h + plain_linear(layer.down_proj, gate * gate.sigmoid() * plain_linear(layer.up_proj, m));
}

class LayerGradients : public testing::TestWithParam<const char*> {};

TEST_P(LayerGradients, EqualPlainAutograd) {
  at::manual_seed(3);
  const ModelPackage package = tiny_model(GetParam());
  const ModelConfig& config = package.config;
  DecoderLayer layer = load_decoder_layer(package, 0, at::kFloat, at::kCPU);
  const PackedBatch batch = pack_sequences(Sequences(3, std::vector<int32_t>(13, 1)));
  const RotaryTable rotary = make_rotary_table(config, num_positions(batch), at::kCPU);
  std::vector<at::Tensor> inputs = {at::randn({batch.num_tokens(), config.hidden_size}).requires_grad_()};
  for (const char* name : kLinearNames) {
    auto pair = std::make_shared<LoraPair>();
    const auto& weight = layer.linear(name).weight;
    pair->a = (at::randn({3, weight.size(1)}) * 0.3).requires_grad_();
    pair->b = (at::randn({weight.size(0), 3}) * 0.3).requires_grad_();
    pair->scale = 0.7;
    layer.linear(name).lora = pair;
    inputs.push_back(pair->a);
    inputs.push_back(pair->b);
  }
  const auto direction = at::randn({batch.num_tokens(), config.hidden_size});
  const auto gradients = [&](const at::Tensor& output) { return torch::autograd::grad({output}, inputs, {direction}); };
  const auto output = layer.forward(inputs[0], batch, rotary, config);
  const auto expected_output = plain_layer(layer, inputs[0], batch, rotary, config);
  EXPECT_LT((output - expected_output).abs().max().item<double>(), 1e-4);
  const auto found = gradients(output), expected = gradients(expected_output);
  for (size_t i = 0; i < inputs.size(); ++i) {
    const double error = (found[i] - expected[i]).abs().max().item<double>();
    EXPECT_LT(error, 1e-5 * std::max(1.0, expected[i].abs().max().item<double>())) << "input " << i;
    EXPECT_GT(expected[i].abs().max().item<double>(), 0) << "input " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Tiny, LayerGradients,
                         testing::Values("tiny_llama", "tiny_mistral", "tiny_qwen2", "tiny_qwen3"),
                         [](const auto& instance) { return std::string(instance.param); });

Linear lora_linear(double dropout) {
  Linear linear;
  linear.weight = at::randn({6, 40});
  linear.lora = std::make_shared<LoraPair>();
  linear.lora->a = at::randn({2, 40}).requires_grad_();
  linear.lora->b = at::randn({6, 2}).requires_grad_();
  linear.lora->dropout = dropout;
  linear.lora->dropout_seed = 17;
  return linear;
}

TEST(LoraDropout, MaskIsAFunctionOfTheSeed) {
  const Linear linear = lora_linear(0.25);
  const auto x = at::randn({50, 40});
  const auto first = linear.forward(x);
  EXPECT_TRUE(first.equal(linear.forward(x)));
  linear.lora->dropout_seed = 18;
  EXPECT_FALSE(first.equal(linear.forward(x)));
}

TEST(LoraDropout, KeepsTheExpectedPartAndScalesIt) {
  // A = 1, B = 1, W = 0: the output is the sum of the kept inputs, each 1 / (1 - p).
  Linear linear;
  linear.weight = at::zeros({1, 1000});
  linear.lora = std::make_shared<LoraPair>();
  linear.lora->a = at::ones({1, 1000}).requires_grad_();
  linear.lora->b = at::ones({1, 1}).requires_grad_();
  linear.lora->dropout = 0.25;
  linear.lora->dropout_seed = 5;
  const auto x = at::ones({200, 1000});
  const auto y = linear.forward(x);
  EXPECT_NEAR(y.mean().item<double>(), 1000.0, 5.0);  // standard deviation of this mean: 1.3
  // Kept entries of a row of 1000 at p = 0.25: standard deviation 13.7, in units of 4/3.
  EXPECT_NEAR(y.std().item<double>(), 13.7 * 4 / 3, 2.0);
  const at::NoGradGuard no_grad;
  EXPECT_TRUE(linear.forward(x).eq(1000.0).all().item<bool>());  // no dropout outside training
}

TEST(LoraDropout, GradientUsesTheForwardsMask) {
  const Linear linear = lora_linear(0.5);
  const auto x = at::randn({7, 40}).requires_grad_();
  const auto y = linear.forward(x);
  const auto direction = at::randn({7, 6});
  const auto grad = torch::autograd::grad({y}, {x, linear.lora->a, linear.lora->b}, {direction});
  // y is linear in x for a fixed mask, so <dx, u> is the change along u exactly; likewise for A and B.
  const auto u = at::randn({7, 40});
  const double along = (linear.forward(x + u) - y).mul(direction).sum().item<double>();
  EXPECT_NEAR(grad[0].mul(u).sum().item<double>(), along, 1e-3);
  Linear moved = linear;
  moved.lora = std::make_shared<LoraPair>(*linear.lora);
  const auto da = at::randn({2, 40});
  moved.lora->a = linear.lora->a + da;
  EXPECT_NEAR(grad[1].mul(da).sum().item<double>(), (moved.forward(x) - y).mul(direction).sum().item<double>(), 1e-3);
}

}  // namespace
}  // namespace potstill
