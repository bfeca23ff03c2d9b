// Forward: token ids through the decoder, on the CPU's own instruction set.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "potstill/edge/activation_buffer.h"
#include "potstill/edge/edge_weights.h"
#include "potstill/edge/kv_cache.h"
#include "potstill/edge/thread_pool.h"
#include "potstill/kernels/kernels.h"
#include "potstill/text/tokenizer.h"

namespace potstill::edge {

enum class ActivationMode {
  kExact,  // 16 bits and a scale a block of 32: what a W4A16 checkpoint says
  kFast,   // 8 bits a block of 32, integer products: what llama.cpp does
};

// What one step does for one sequence: `tokens` come after what the cache holds, and into it.
struct SequenceStep {
  std::span<const TokenId> tokens;
  KvCache* cache = nullptr;
  bool decoding = false;     // one token, computed as decode() does; else as prompt() does
  bool wants_logits = true;  // of the last token
};

class Forward {
 public:
  static constexpr int64_t kStepTokens = 256;  // more in one step only cost memory: a 3B model's activations are 30 MB

  // Borrows both.
  Forward(const EdgeWeights& weights, ThreadPool& pool, ActivationMode mode);

  // Runs tokens of several sequences at once, each with a cache of its own, so that every weight is read once for all
  // of them; no cache may be given twice. A sequence's results are those of prompt() and decode() to the bit, whatever
  // its neighbours are. Returns the logits of the sequences that want them, in their order, [n, V], valid until the
  // next call; those with no wish cost nothing for it. Throws Error(kInput) before anything changed: no tokens, ids out
  // of range, a full cache.
  std::span<const float> step(std::span<const SequenceStep> sequences);

  // Appends a prompt to the cache, kStepTokens at a time as matrix-matrix work. Results do not depend on where
  // a prompt is cut, nor on the number of threads. Returns the last position's logits [V], valid until the next call.
  std::span<const float> prompt(std::span<const TokenId> tokens, KvCache& cache);
  // The same, with every position's logits: visit(index into tokens, logits [V]).
  void prompt(std::span<const TokenId> tokens, KvCache& cache,
              const std::function<void(size_t, std::span<const float>)>& visit);
  // Appends one token as matrix-vector work: rounds differently from prompt(), in the last bits.
  std::span<const float> decode(TokenId token, KvCache& cache);

  const EdgeWeights& weights() const { return weights_; }
  ActivationMode mode() const { return mode_; }

 private:
  struct Product {
    const Linear* linear;
    float* y;  // [T, out]
  };
  // A sequence's rows of the step's activations; those of decoding sequences come first.
  struct Stretch {
    KvCache* cache;
    int64_t first_row, num_tokens, position;
    size_t sequence;  // index into the step's
  };
  void begin_step(std::span<const SequenceStep> sequences);
  void run_layers(std::span<const SequenceStep> sequences);
  void run_layer(const LayerWeights& layer, int64_t index);
  void turn_and_store(const LayerWeights& layer, int64_t index);
  void attend(int64_t layer, Ahead ahead);
  void mlp(const LayerWeights& layer, Ahead ahead);
  void norm_rows(const float* x, const std::vector<float>& weight, ActivationBuffer& out);
  void quantize_rows(ActivationBuffer& activations);
  int64_t pieces_grain(int64_t num_units, uint64_t weight_bytes) const;
  void multiply(const ActivationBuffer& activations, std::span<const Product> products, bool add, Ahead ahead);
  void multiply_rows(const ActivationBuffer& activations, const Product& product, int64_t row, int64_t row_end,
                     bool add, int thread);
  std::span<const float> head_logits(int64_t num_tokens, bool decoding);
  void check_tokens(const SequenceStep& sequence) const;
  void resize(int64_t num_tokens);

  const EdgeWeights& weights_;
  ThreadPool& pool_;
  ActivationMode mode_;
  kernels::CodeWidth width_;
  const kernels::KernelTable& kernels_;
  std::vector<Stretch> stretches_;
  std::vector<const Stretch*> row_stretch_;                           // [T]
  std::vector<std::pair<const Stretch*, int64_t>> attention_pieces_;  // a stretch and the first of a few of its tokens
  int64_t num_rows_ = 0, num_decoding_ = 0;  // T, and how many rows go straight through the file's bytes
  // Per token of a chunk:
  std::vector<float> hidden_, normed_, q_, k_, v_, attended_, gate_, up_, cosines_, sines_, logits_;
  ActivationBuffer inputs_, gated_;    // of the products with [D] or [H · Dh] columns, and of down_proj
  std::vector<AlignedBytes> scratch_;  // a thread's own
};

}  // namespace potstill::edge
