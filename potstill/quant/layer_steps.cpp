#include "potstill/quant/layer_steps.h"

namespace potstill {

at::Tensor LayerInputs::first_use(size_t batch) {
  auto inputs = compute_(batch);
  const auto bytes = static_cast<uint64_t>(inputs.numel()) * inputs.element_size();
  if (bytes <= memory_) {
    memory_ -= bytes;
    kept_[batch] = inputs;
  }
  return inputs;
}

at::Tensor LayerInputs::last_use(size_t batch) {
  return kept_[batch].defined() ? std::exchange(kept_[batch], at::Tensor()) : compute_(batch);
}

at::Tensor LayerSteps::attention_output(size_t b) const {
  const auto x = attention_input(b);
  return weights_.attention(weights_.q_proj.forward(x), weights_.k_proj.forward(x), weights_.v_proj.forward(x),
                            corpus_.batches[b], rotary_, config_);
}

at::Tensor LayerSteps::mlp_activations(size_t b) const {
  const auto x = mlp_input(b);
  return swiglu(weights_.gate_proj.forward(x), weights_.up_proj.forward(x));
}

const std::vector<LinearSet>& linear_sets() {
  static const std::vector<LinearSet> sets = {{{"q_proj", "k_proj", "v_proj"}, &LayerSteps::attention_input},
                                              {{"o_proj"}, &LayerSteps::attention_output},
                                              {{"gate_proj", "up_proj"}, &LayerSteps::mlp_input},
                                              {{"down_proj"}, &LayerSteps::mlp_activations}};
  return sets;
}

CorpusState leading_sequences(const CorpusState& corpus, int64_t tokens) {
  CorpusState part = one_batch(corpus, 0);
  PackedBatch& batch = part.batches.front();
  size_t count = 1;
  while (count + 1 < batch.offsets.size() && batch.offsets[count + 1] <= tokens) ++count;
  batch.offsets.resize(count + 1);
  if (!batch.parent.empty()) batch.parent.resize(count);
  const int64_t rows = batch.offsets.back();
  batch.token_ids = batch.token_ids.slice(0, 0, rows);
  batch.positions = batch.positions.slice(0, 0, rows);
  part.hidden.front() = part.hidden.front().slice(0, 0, rows);
  part.sequence_of.front().resize(count);
  return part;
}

CorpusState one_batch(const CorpusState& corpus, size_t b) {
  return {{corpus.batches[b]}, {corpus.hidden[b]}, {corpus.sequence_of[b]}};
}

}  // namespace potstill
