// The inputs of a decoder layer's linears, batch by batch, as quantization walks through the layer.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "potstill/nn/layer_stream.h"

namespace potstill {

// The inputs of a set of linears, needed twice: for H, and then for the output with the quantized weights. Kept
// between as far as memory allows.
class LayerInputs {
 public:
  LayerInputs(size_t num_batches, uint64_t memory, std::function<at::Tensor(size_t)> compute)
      : kept_(num_batches), memory_(memory), compute_(std::move(compute)) {}

  at::Tensor first_use(size_t batch);
  at::Tensor last_use(size_t batch);

 private:
  std::vector<at::Tensor> kept_;
  uint64_t memory_;
  std::function<at::Tensor(size_t)> compute_;
};

// The four inputs of a layer's linears and what its outputs do to the hidden states, over one stream of batches.
class LayerSteps {
 public:
  LayerSteps(const DecoderLayer& weights, CorpusState& corpus, const RotaryTable& rotary, const ModelConfig& config)
      : weights_(weights), corpus_(corpus), rotary_(rotary), config_(config) {}

  at::Tensor attention_input(size_t b) const { return weights_.attention_input(corpus_.hidden[b], config_); }
  at::Tensor attention_output(size_t b) const;
  at::Tensor mlp_input(size_t b) const { return weights_.mlp_input(corpus_.hidden[b], config_); }
  at::Tensor mlp_activations(size_t b) const;
  void add_output(size_t b, const Linear& linear, const at::Tensor& x) {
    corpus_.hidden[b] = corpus_.hidden[b] + linear.forward(x);
  }
  size_t num_batches() const { return corpus_.hidden.size(); }

 private:
  const DecoderLayer& weights_;
  CorpusState& corpus_;
  const RotaryTable& rotary_;
  const ModelConfig& config_;
};

using InputOf = at::Tensor (LayerSteps::*)(size_t) const;

// Linears that share an input: they are quantized together, in this order.
struct LinearSet {
  std::vector<const char*> names;
  InputOf input;
};
const std::vector<LinearSet>& linear_sets();  // q, k, v; o; gate, up; down

// Batch `b` of a corpus as a corpus of its own: hidden states are shared until one of the two replaces them.
CorpusState one_batch(const CorpusState& corpus, size_t b);
// The first sequences of the first batch: as many as `tokens` tokens take, one at the least.
CorpusState leading_sequences(const CorpusState& corpus, int64_t tokens);

}  // namespace potstill
