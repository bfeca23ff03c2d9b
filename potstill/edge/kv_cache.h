// KvCache: keys and values of one sequence in fp16, in the layout that kernels::AttentionTask reads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "potstill/formats/model_config.h"

namespace potstill::edge {

// Addresses for `capacity` positions are reserved at once; memory is taken only where a position is written, so a long
// context costs nothing until it is used.
class KvCache {
 public:
  // Throws Error(kMemory) when the system refuses the addresses.
  KvCache(const ModelConfig& config, int64_t capacity);
  ~KvCache();
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  uint16_t* keys(int64_t layer, int64_t kv_head) { return data_ + offset(layer, kv_head); }
  uint16_t* values(int64_t layer, int64_t kv_head) { return data_ + offset(layer, kv_head) + rounded_ * stride_; }

  int64_t stride() const { return stride_; }  // head_dim rounded up to 16
  int64_t capacity() const { return capacity_; }
  int64_t length() const { return length_; }
  void set_length(int64_t length);  // after new positions were written, or to forget the last ones
  uint64_t bytes_per_position() const;

 private:
  int64_t offset(int64_t layer, int64_t kv_head) const {
    return (layer * num_heads_ + kv_head) * 2 * rounded_ * stride_;
  }

  int64_t num_layers_, num_heads_, stride_, capacity_, rounded_ /* capacity, a multiple of 16 */, length_ = 0;
  size_t bytes_ = 0;
  uint16_t* data_ = nullptr;
};

}  // namespace potstill::edge
