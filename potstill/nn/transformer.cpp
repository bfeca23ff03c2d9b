#include "potstill/nn/transformer.h"

namespace potstill {

at::Tensor Transformer::hidden_states(const PackedBatch& batch) const {
  const RotaryTable rotary = make_rotary_table(config, longest_sequence(batch), device());
  at::Tensor hidden = embed_tokens.index_select(0, batch.token_ids);
  for (const DecoderLayer& layer : layers) hidden = layer.forward(hidden, batch, rotary, config);
  return rms_norm(hidden, norm, config.rms_norm_eps);
}

at::Tensor Transformer::logits(const at::Tensor& hidden) const { return at::linear(hidden, lm_head).to(at::kFloat); }

}  // namespace potstill
