// EdgeWeights: the tensors of a mapped GGUF, bound to the places where a decoder uses them. Nothing is copied but the
// one-dimensional ones.
#pragma once

#include <vector>

#include "potstill/formats/gguf.h"
#include "potstill/formats/model_config.h"
#include "potstill/kernels/matrix.h"
#include "potstill/kernels/rope.h"

namespace potstill::edge {

struct Linear {
  kernels::MatrixView weight;  // [out, in]
  std::vector<float> bias;     // [out], or empty
};

struct LayerWeights {
  std::vector<float> attention_norm, mlp_norm;  // [D]
  Linear q_proj, k_proj, v_proj, o_proj;
  std::vector<float> q_norm, k_norm;  // [Dh], qwen3; else empty
  Linear gate_proj, up_proj, down_proj;
};

struct EdgeWeights {
  ModelConfig config;
  kernels::MatrixView embedding, head;  // [V, D]; one and the same when tied
  std::vector<float> output_norm;       // [D]
  std::vector<LayerWeights> layers;
  std::vector<float> inverse_frequencies;  // [Dh / 2], scaled for long contexts
  kernels::RopeOrder rope_order = kernels::RopeOrder::kHalves;

  // Bytes that decoding one token reads: every weight once, of the embedding one row unless it is the head too.
  uint64_t bytes_per_token() const;
};

// Walks the model and asks the file. Throws Error(kFormat): a tensor that is missing, of another shape, of a type that
// has no kernel, or that no part of the model asked for. The views live as long as the file.
EdgeWeights bind_weights(const GgufFile& file);

}  // namespace potstill::edge
