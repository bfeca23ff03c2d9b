// KvCache: keys and values of one sequence, in the layout that kernels::AttentionTask reads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "potstill/formats/model_config.h"
#include "potstill/kernels/kv_layout.h"

namespace potstill::edge {

// Addresses for `capacity` positions are reserved at once; memory is taken only where a position is written, so a long
// context costs nothing until it is used.
class KvCache {
 public:
  // Throws Error(kMemory) when the system refuses the addresses.
  KvCache(const ModelConfig& config, int64_t capacity, kernels::KvType type = kernels::KvType::kHalf);
  ~KvCache();
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  std::byte* keys(int64_t layer, int64_t kv_head) { return data_ + offset(layer, kv_head); }
  std::byte* values(int64_t layer, int64_t kv_head) { return data_ + offset(layer, kv_head) + head_bytes_; }

  const kernels::KvLayout& layout() const { return layout_; }
  int64_t capacity() const { return capacity_; }
  int64_t length() const { return length_; }
  void set_length(int64_t length);  // after new positions were written, or to forget the last ones
  // Becomes the first `count` positions of another cache of the same shape.
  void copy_beginning(const KvCache& other, int64_t count);
  uint64_t bytes_per_position() const;

 private:
  size_t offset(int64_t layer, int64_t kv_head) const {
    return static_cast<size_t>(layer * num_heads_ + kv_head) * 2 * head_bytes_;
  }

  kernels::KvLayout layout_;
  int64_t num_layers_, num_heads_, capacity_, length_ = 0;
  size_t head_bytes_;  // of a head's keys, or of its values
  size_t bytes_ = 0;
  std::byte* data_ = nullptr;
};

}  // namespace potstill::edge
