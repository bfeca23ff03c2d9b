// Layer-major execution: `for layer: for batch`. Each layer's weights are loaded once, whatever the corpus, and dropped
// before the next; the hidden states of the whole corpus are kept between. The one way to run a model over a corpus
// (DESIGN, decision 3): teacher caching, calibration, activation statistics, evaluation of models larger than memory.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "potstill/nn/transformer.h"

namespace potstill {

struct LayerStreamOptions {
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
  int64_t tokens_per_batch = 4096;  // sequences are packed into batches of about this many tokens
  std::function<void(int64_t layers_done, int64_t layers)> progress;
};

// The corpus cut into packed batches, with each batch's hidden states.
struct CorpusState {
  std::vector<PackedBatch> batches;
  std::vector<at::Tensor> hidden;                 // [ΣT, D] a batch
  std::vector<std::vector<int64_t>> sequence_of;  // batch -> index of each of its sequences in the corpus
};

// The embeddings of one batch, [ΣT, D] in options.dtype on options.device, without loading the table.
at::Tensor embed_batch(const ModelPackage& model, const PackedBatch& batch, const LayerStreamOptions& options);

CorpusState embed_corpus(const ModelPackage& model, std::span<const std::vector<int32_t>> corpus,
                         const LayerStreamOptions& options);

// The same of batches that are packed already (on any device), with sequences that share a parent.
CorpusState embed_batches(const ModelPackage& model, std::vector<PackedBatch> batches,
                          const LayerStreamOptions& options);

// Runs layers [first, last) over the corpus in place. `visit`, when given, gets each loaded layer and the corpus's
// hidden states *instead of* the plain forward, and must advance them itself: how GPTQ quantizes a layer between
// capture and output.
using LayerVisitor =
    std::function<void(int64_t layer, DecoderLayer& weights, CorpusState& corpus, const RotaryTable& rotary)>;
void run_layers(const ModelPackage& model, CorpusState& corpus, const LayerStreamOptions& options, int64_t first,
                int64_t last, const LayerVisitor& visit = {});

// Final norm over every batch: hidden states as the LM head sees them.
void finish_corpus(const ModelPackage& model, CorpusState& corpus, const LayerStreamOptions& options);

}  // namespace potstill
