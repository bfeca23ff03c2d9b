// EdgeWeights: the tensors of a mapped GGUF or of a Hugging Face folder, bound to the places where a decoder uses them.
// Of a GGUF nothing is copied but the one-dimensional ones; of a W4A16 folder the 4-bit weights are.
#pragma once

#include <memory>
#include <vector>

#include "potstill/formats/gguf.h"
#include "potstill/formats/model_config.h"
#include "potstill/formats/weight_source.h"
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

// Gives a mapping back.
struct WeightArena {
  size_t bytes = 0;
  void operator()(std::byte* memory) const;
};

struct EdgeWeights {
  ModelConfig config;
  kernels::MatrixView embedding, head;  // [V, D]; one and the same when tied
  std::vector<float> output_norm;       // [D]
  std::vector<LayerWeights> layers;
  std::vector<float> inverse_frequencies;  // [Dh / 2], scaled for long contexts
  kernels::RopeOrder rope_order = kernels::RopeOrder::kHalves;
  std::vector<std::unique_ptr<std::byte[]>> copies;  // what no file holds in a form that the products read
  std::unique_ptr<std::byte, WeightArena> arena;     // of repack()

  // Bytes that decoding one token reads: every weight once, of the embedding one row unless it is the head too.
  uint64_t bytes_per_token() const;
};

// Walks the model and asks the file. Throws Error(kFormat): a tensor that is missing, of another shape, of a type that
// has no kernel, or that no part of the model asked for. The views live as long as the file.
EdgeWeights bind_weights(const GgufFile& file);

// The same for a Hugging Face folder: F32, F16 and BF16 weights are used where they lie; 4-bit ones
// (compressed-tensors) become Q4_0 or, asymmetric, Q4_1, value for value. Error(kInput) for a group that is no multiple
// of 32, Error(kNumeric) for a scale that fp16 does not hold. The views live as long as the source.
EdgeWeights bind_folder(const WeightSource& source, const ModelConfig& config);

}  // namespace potstill::edge
