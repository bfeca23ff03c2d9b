// Slot: a KV cache and what is known of its contents, so that a later prompt can begin where this one's beginning ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "potstill/edge/kv_cache.h"
#include "potstill/lm/text_engine.h"

namespace potstill::edge {

struct Slot {
  Slot(const ModelConfig& config, int64_t capacity, kernels::KvType type) : cache(config, capacity, type) {}

  KvCache cache;
  std::vector<TokenId> tokens;  // of the cache's positions
  size_t as_prompt = 0;         // how many of them, from the start, were computed as a prompt
  // What predicted the prompt's tokens, from the first on, where some request asked: choices of one question share it.
  std::vector<TokenLogProbs> log_probs;
  int num_top = -1;  // how many others log_probs has
  bool in_use = false;
  uint64_t last_used = 0;

  // Positions of this slot that can stand for the beginning of the request's prompt. Its last token is always computed:
  // the answer begins from its logits.
  size_t shared_with(const EngineRequest& request) const;
  // Takes over `count` positions of another slot, or its own first ones; also what predicted the token after them, when
  // that token stays the same.
  void begin_with(Slot& other, size_t count, bool same_next_token);
};

// Length of the common beginning.
size_t common_prefix(std::span<const TokenId> a, std::span<const TokenId> b);

}  // namespace potstill::edge
