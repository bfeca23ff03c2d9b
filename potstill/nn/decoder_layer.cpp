#include "potstill/nn/decoder_layer.h"

#include <fmt/format.h>

#include "potstill/base/check.h"
#include "potstill/nn/attention.h"
#include "potstill/nn/rotary.h"

namespace potstill {
namespace {

constexpr Linear DecoderLayer::*kLinears[] = {&DecoderLayer::q_proj,   &DecoderLayer::k_proj,    &DecoderLayer::v_proj,
                                              &DecoderLayer::o_proj,   &DecoderLayer::gate_proj, &DecoderLayer::up_proj,
                                              &DecoderLayer::down_proj};

size_t linear_index(std::string_view name) {
  size_t index = 0;
  while (index < std::size(kLinearNames) && name != kLinearNames[index]) ++index;
  POTSTILL_CHECK(index < std::size(kLinearNames));
  return index;
}

}  // namespace

std::string linear_path(int64_t layer, std::string_view linear) {
  return fmt::format("model.layers.{}.{}.{}", layer, linear_index(linear) < 4 ? "self_attn" : "mlp", linear);
}

Linear& DecoderLayer::linear(std::string_view name) { return this->*kLinears[linear_index(name)]; }
const Linear& DecoderLayer::linear(std::string_view name) const { return this->*kLinears[linear_index(name)]; }

at::Tensor DecoderLayer::attention_input(const at::Tensor& hidden, const ModelConfig& config) const {
  return rms_norm(hidden, input_layernorm, config.rms_norm_eps);
}

at::Tensor DecoderLayer::mlp_input(const at::Tensor& hidden, const ModelConfig& config) const {
  return rms_norm(hidden, post_attention_layernorm, config.rms_norm_eps);
}

at::Tensor DecoderLayer::attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                   const PackedBatch& batch, const RotaryTable& rotary,
                                   const ModelConfig& config) const {
  const auto positioned = [&](const at::Tensor& x, const at::Tensor& norm) {
    if (!norm.defined()) return apply_rotary(x, batch.positions, rotary);
    // Qwen3: each head is normalised on its own
    const auto normal = rms_norm(x.unflatten(1, {-1, config.head_dim}), norm, config.rms_norm_eps).flatten(1);
    return apply_rotary(normal, batch.positions, rotary);
  };
  return causal_attention(positioned(q, q_norm), positioned(k, k_norm), v, batch, config);
}

at::Tensor DecoderLayer::forward(const at::Tensor& hidden, const PackedBatch& batch, const RotaryTable& rotary,
                                 const ModelConfig& config, const at::Tensor& rows) const {
  at::Tensor h = hidden;
  {
    const auto qkv = forward_together({&q_proj, &k_proj, &v_proj}, attention_input(h, config));
    at::Tensor a = attention(qkv[0], qkv[1], qkv[2], batch, rotary, config);
    if (rows.defined()) {  // rows meet in attention alone
      a = a.index_select(0, rows);
      h = h.index_select(0, rows);
    }
    h = h + o_proj.forward(a);
  }
  const auto both = forward_together({&gate_proj, &up_proj}, mlp_input(h, config));
  return h + down_proj.forward(swiglu(both[0], both[1]));
}

}  // namespace potstill
