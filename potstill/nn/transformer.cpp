#include "potstill/nn/transformer.h"

#include "potstill/nn/matmul.h"

namespace potstill {

at::Tensor Transformer::hidden_states(const PackedBatch& batch) const {
  const RotaryTable rotary = make_rotary_table(config, num_positions(batch), device());
  at::Tensor hidden = embed_tokens.index_select(0, batch.token_ids);
  for (const DecoderLayer& layer : layers) hidden = layer.forward(hidden, batch, rotary, config);
  return rms_norm(hidden, norm, config.rms_norm_eps);
}

at::Tensor Transformer::logits(const at::Tensor& hidden) const {
  if (packed_head.packed.defined()) return packed_head.forward(hidden).to(at::kFloat);
  return times_transposed(hidden, lm_head).to(at::kFloat);
}

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
