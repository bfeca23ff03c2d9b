#include "potstill/nn/transformer.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include <algorithm>

#include "potstill/nn/matmul.h"

namespace potstill {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// What a layer needs beside its input; lives as long as the graph.
struct LayerCall : torch::CustomClassHolder {
  DecoderLayer layer;
  PackedBatch batch;
  RotaryTable rotary;
  ModelConfig config;
  at::Tensor rows;

  at::Tensor forward(const at::Tensor& hidden) const { return layer.forward(hidden, batch, rotary, config, rows); }
};

bool has_factors(const DecoderLayer& layer) {
  return std::ranges::any_of(kLinearNames, [&](const char* name) { return layer.linear(name).lora != nullptr; });
}

at::Tensor first_factor(const DecoderLayer& layer) {
  for (const char* name : kLinearNames) {
    if (layer.linear(name).lora) return layer.linear(name).lora->a;
  }
  return {};
}

// The layer without its graph. The gradient computes it once more with one, from its input; the factors get their
// gradients in that inner pass. The factor among the inputs only makes autograd call back where the hidden states
// themselves need no gradient: in the first layer.
struct CheckpointedLayer : torch::autograd::Function<CheckpointedLayer> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& hidden, const at::Tensor& factor,
                            const c10::intrusive_ptr<LayerCall>& call) {
    (void)factor;
    context->save_for_backward({hidden});
    context->saved_data["call"] = c10::IValue::make_capsule(call);
    context->saved_data["wants_input"] = hidden.requires_grad();
    // Dropout is on while gradients are: the masks of both passes must be the same.
    const at::AutoGradMode on(true);
    return call->forward(hidden.detach()).detach();
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto call = c10::static_intrusive_pointer_cast<LayerCall>(context->saved_data["call"].toCapsule());
    const at::AutoGradMode on(true);
    const bool wants_input = context->saved_data["wants_input"].toBool();
    const auto hidden = context->get_saved_variables()[0].detach().set_requires_grad(wants_input);
    call->forward(hidden).backward(grads[0]);
    return {wants_input ? hidden.grad() : at::Tensor(), {}, {}};
  }
};

}  // namespace

at::Tensor Transformer::hidden_states(const PackedBatch& batch, bool checkpoint_activations,
                                      const at::Tensor& rows) const {
  const RotaryTable rotary = make_rotary_table(config, num_positions(batch), device());
  at::Tensor hidden = embed_tokens.index_select(0, batch.token_ids);
  for (const DecoderLayer& layer : layers) {
    const at::Tensor wanted = &layer == &layers.back() ? rows : at::Tensor();
    const bool wants_gradient = at::GradMode::is_enabled() && (hidden.requires_grad() || has_factors(layer));
    if (!checkpoint_activations || !wants_gradient) {
      hidden = layer.forward(hidden, batch, rotary, config, wanted);
      continue;
    }
    auto call = c10::make_intrusive<LayerCall>();
    call->layer = layer;
    call->batch = batch;
    call->rotary = rotary;
    call->config = config;
    call->rows = wanted;
    hidden = CheckpointedLayer::apply(hidden, first_factor(layer), call);
  }
  if (layers.empty() && rows.defined()) hidden = hidden.index_select(0, rows);
  return rms_norm(hidden, norm, config.rms_norm_eps);
}

at::Tensor Transformer::head(const at::Tensor& hidden) const {
  if (packed_head.packed.defined()) return packed_head.forward(hidden);
  return times_transposed(hidden, lm_head);
}

at::Tensor Transformer::logits(const at::Tensor& hidden) const { return head(hidden).to(at::kFloat); }

void Transformer::pack() {
  for (DecoderLayer& layer : layers) {
    for (const std::string_view name : kLinearNames) layer.linear(name).pack();
  }
  packed_head.weight = lm_head;
  packed_head.pack();
  // An untied head is needed in the packed form alone.
  if (packed_head.packed.defined() && !lm_head.is_same(embed_tokens)) lm_head.reset();
}

}  // namespace potstill
