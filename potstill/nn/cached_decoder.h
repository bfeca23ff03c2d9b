// CachedDecoder: generation for a fixed number of rows ("slots"), each with its own key/value cache.
//
// A step always multiplies num_slots rows, idle ones too, and a prompt is always read alone, kPrefillChunk tokens at a
// time: so a sequence's logits do not depend, to the bit, on what its neighbours are, which is what lets a killed run
// be taken up again to the same end. Whole chunks that another slot's prompt begins with too (the examples that all
// prompts of a task share) are copied from there: they are what reading them again would give.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <span>
#include <vector>

#include "potstill/nn/transformer.h"

namespace potstill {

class CachedDecoder {
 public:
  static constexpr int64_t kPrefillChunk = 64;

  // The model is borrowed. capacity: the most tokens of a slot, rounded up.
  CachedDecoder(const Transformer& model, int64_t num_slots, int64_t capacity);

  int64_t num_slots() const { return static_cast<int64_t>(lengths_.size()); }
  int64_t capacity() const { return capacity_; }

  // Puts a prompt into a slot, in the place of what was there. Returns the fp32 logits [V] after its last token.
  at::Tensor prefill(int64_t slot, std::span<const int32_t> prompt);
  // Appends one token to every slot, token_ids[slot]; a negative one leaves the slot as it is. Returns fp32 logits
  // [slots, V]; rows of slots left alone mean nothing.
  at::Tensor step(std::span<const int32_t> token_ids);

  int64_t copied_tokens() const { return copied_tokens_; }  // of all prompts so far

 private:
  int64_t copy_shared_chunks(int64_t slot, std::span<const int32_t> prompt);
  at::Tensor read_chunk(int64_t slot, std::span<const int32_t> tokens, int64_t begin);
  at::Tensor attend(const DecoderLayer& layer, size_t index, const at::Tensor& x, const at::Tensor& lengths);
  at::Tensor attend_on_device(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, size_t index,
                              const at::Tensor& lengths);

  const Transformer& model_;
  int64_t capacity_;
  RotaryTable rotary_;
  std::vector<int64_t> lengths_;               // tokens in a slot
  std::vector<std::vector<int32_t>> prompts_;  // that the slot's cache begins with
  int64_t copied_tokens_ = 0;
  std::vector<at::Tensor> k_cache_, v_cache_;  // a layer: [slots, Hk, capacity, Dh], k rotated
};

}  // namespace potstill
