// One decoder layer of the Llama family, in steps that training, layer-major passes and GPTQ all compose.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <vector>

#include "potstill/formats/model_config.h"
#include "potstill/nn/packed_batch.h"

namespace potstill {

// LoRA factors of one linear, fp32, in PEFT's shapes.      y += scale · B (A dropout(x))      arXiv:2106.09685
struct LoraPair {
  at::Tensor a;          // [r, I]
  at::Tensor b;          // [O, r]
  double scale = 1.0;    // lora_alpha / r, or lora_alpha / sqrt(r) with rsLoRA
  double dropout = 0.0;  // on the input of A, only while at::GradMode is on
  // Decides the mask, with the element's index alone. A training step sets it before each forward, another for each
  // pair (derive_seed(step's seed, path)), so that a resumed run draws what the undisturbed one drew.
  uint64_t dropout_seed = 0;
};

struct Linear {
  at::Tensor weight;               // [O, I], frozen
  at::Tensor bias;                 // [O] or undefined
  std::shared_ptr<LoraPair> lora;  // null = none
  at::Tensor packed;               // the weight after pack()

  // x [T, I] -> [T, O]. No gradient is computed for the frozen weight.
  at::Tensor forward(const at::Tensor& x) const;
  // For inference alone: lays the weight out as oneDNN's kernels read it (about twice as fast at 16 rows) and lets the
  // plain one go. Does nothing where oneDNN does not multiply this dtype or device, or with LoRA.
  void pack();
};

// forward() of linears that read the same x, with one product for all their A factors and one gradient of x.
std::vector<at::Tensor> forward_together(const std::vector<const Linear*>& linears, const at::Tensor& x);

// cos and sin of the rotary embedding for positions [0, max_position): each [max_position, head_dim / 2] fp32.
struct RotaryTable {
  at::Tensor cos, sin;
};
RotaryTable make_rotary_table(const ModelConfig& config, int64_t max_position, at::Device device);

// The seven linears of a layer by Hugging Face's names, in this order everywhere.
inline constexpr const char* kLinearNames[] = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                               "gate_proj", "up_proj", "down_proj"};
std::string linear_path(int64_t layer, std::string_view linear);  // "model.layers.3.self_attn.q_proj"

struct DecoderLayer {
  Linear q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj;
  at::Tensor input_layernorm, post_attention_layernorm;  // [D]
  at::Tensor q_norm, k_norm;                             // [Dh] or undefined

  Linear& linear(std::string_view name);
  const Linear& linear(std::string_view name) const;

  // hidden [ΣT, D] -> [ΣT, D]: the whole layer, which is exactly the steps below in order. With `rows` [N] int64, only
  // those rows of the result: [N, D].
  at::Tensor forward(const at::Tensor& hidden, const PackedBatch& batch, const RotaryTable& rotary,
                     const ModelConfig& config, const at::Tensor& rows = {}) const;

  // x = attention_input(h);  a = attention(q(x), k(x), v(x));  h += o(a);  m = mlp_input(h);  h += down(swiglu(gate(m),
  // up(m)))
  at::Tensor attention_input(const at::Tensor& hidden, const ModelConfig& config) const;
  at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const PackedBatch& batch,
                       const RotaryTable& rotary, const ModelConfig& config) const;  // [ΣT, H·Dh], the input of o_proj
  at::Tensor mlp_input(const at::Tensor& hidden, const ModelConfig& config) const;
};

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);  // fp32 inside, as transformers does
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);                 // silu(gate) · up

}  // namespace potstill
