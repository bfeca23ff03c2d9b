// What quantizing a model takes of memory, from its shape.
#pragma once

#include <cstdint>

#include "potstill/quant/quantize_layer.h"

namespace potstill {

struct MemoryPlan {
  uint64_t process = 0;      // LibTorch, the vocabulary, what the allocator holds
  uint64_t hidden = 0;       // hidden states of the corpus, and of the unquantized model's where it is followed
  uint64_t layer = 0;        // one layer's weights, as read and as quantized
  uint64_t hessian = 0;      // the widest input's statistics with their factorisation
  uint64_t batch = 0;        // activations of one batch
  uint64_t activations = 0;  // inputs of o and down kept for the second use: what is left of the limit

  uint64_t needed() const { return process + hidden + layer + hessian + batch; }
  uint64_t total() const { return needed() + activations; }
};

// limit_bytes: of the process; 0 = 1 GiB, or a little more than is needed. Less than needed leaves no room for kept
// activations, and the plan says what it comes to all the same.
MemoryPlan plan_memory(const ModelConfig& config, const QuantizeSettings& settings, int64_t num_tokens,
                       int64_t tokens_per_batch, uint64_t limit_bytes);

}  // namespace potstill
