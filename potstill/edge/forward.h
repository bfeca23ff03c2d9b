// Forward: token ids through the decoder, on the CPU's own instruction set.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "potstill/edge/edge_weights.h"
#include "potstill/edge/kv_cache.h"
#include "potstill/edge/thread_pool.h"
#include "potstill/kernels/kernels.h"
#include "potstill/text/tokenizer.h"

namespace potstill::edge {

enum class ActivationMode {
  kExact,  // fp32 activations: what a W4A16 checkpoint says
  kFast,   // 8 bits a block of 32, integer products: what llama.cpp does
};

// Bytes that come aligned to a cache line; contents are lost when it grows.
class AlignedBytes {
 public:
  std::byte* reserve(size_t bytes);
  template <class T>
  T* reserve_for(size_t count) {
    return reinterpret_cast<T*>(reserve(count * sizeof(T)));
  }

 private:
  struct Free {
    void operator()(std::byte* p) const;
  };
  std::unique_ptr<std::byte, Free> data_;
  size_t size_ = 0;
};

class Forward {
 public:
  // Borrows both.
  Forward(const EdgeWeights& weights, ThreadPool& pool, ActivationMode mode);

  // Appends a prompt to the cache, up to 256 positions at a time as matrix-matrix work. Results do not depend on where
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
  void run_layers(std::span<const TokenId> tokens, KvCache& cache, bool decoding);
  void run_layer(const LayerWeights& layer, int64_t index, int64_t num_tokens, KvCache& cache);
  void turn_and_store(const LayerWeights& layer, int64_t index, int64_t num_tokens, KvCache& cache);
  void attend(int64_t layer, int64_t num_tokens, KvCache& cache);
  void norm_rows(const float* x, const std::vector<float>& weight, int64_t num_tokens, float* y);
  void multiply(const float* x, int64_t cols, int64_t num_tokens, std::span<const Product> products);
  kernels::Activations prepare(const float* x, int64_t cols, int64_t num_tokens);
  std::span<const float> head_logits(const float* hidden, int64_t num_tokens, bool decoding);
  void check_tokens(std::span<const TokenId> tokens, const KvCache& cache) const;
  void resize(int64_t num_tokens);

  const EdgeWeights& weights_;
  ThreadPool& pool_;
  ActivationMode mode_;
  const kernels::KernelTable& kernels_;
  bool decoding_ = false;  // one token, straight from the file's bytes
  // Per token of a chunk:
  std::vector<float> hidden_, normed_, q_, k_, v_, attended_, gate_, up_, cosines_, sines_, logits_;
  std::vector<float> block_sums_, scales_;
  AlignedBytes codes_;
  std::vector<AlignedBytes> scratch_;  // a thread's own
};

}  // namespace potstill::edge
