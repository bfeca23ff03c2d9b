#include "potstill/edge/kv_cache.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <cstring>

#include "potstill/base/check.h"
#include "potstill/base/checked_math.h"
#include "potstill/base/error.h"
#include "potstill/base/log.h"

namespace potstill::edge {

KvCache::KvCache(const ModelConfig& config, int64_t capacity, kernels::KvType type)
    : layout_(kernels::kv_layout(type, config.head_dim)),
      num_layers_(config.num_hidden_layers),
      num_heads_(config.num_key_value_heads),
      capacity_(capacity),
      head_bytes_(static_cast<size_t>(ceil_div(capacity, kernels::KvLayout::kGroup) * layout_.group_bytes())) {
  POTSTILL_CHECK(capacity > 0);
  bytes_ = static_cast<size_t>(num_layers_ * num_heads_) * 2 * head_bytes_;
  void* memory = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    throw Error(ErrorKind::kMemory, "KV cache",
                fmt::format("cannot reserve {} for {} positions", format_bytes(bytes_), capacity),
                "ask for a shorter --context");
  }
  // A huge page a head and layer would take 2 MB for the first position of each.
  ::madvise(memory, bytes_, MADV_NOHUGEPAGE);
  data_ = static_cast<std::byte*>(memory);
}

KvCache::~KvCache() { ::munmap(data_, bytes_); }

void KvCache::set_length(int64_t length) {
  POTSTILL_CHECK(length >= 0 && length <= capacity_);
  length_ = length;
}

// In whole groups of positions: what the last one has too much is written over before it is read.
void KvCache::copy_beginning(const KvCache& other, int64_t count) {
  POTSTILL_CHECK(count <= other.length_ && count <= capacity_ && layout_.stride == other.layout_.stride &&
                 layout_.type == other.layout_.type);
  const auto bytes = static_cast<size_t>(ceil_div(count, kernels::KvLayout::kGroup) * layout_.group_bytes());
  for (size_t head = 0; head < static_cast<size_t>(2 * num_layers_ * num_heads_); ++head) {
    std::memcpy(data_ + head * head_bytes_, other.data_ + head * other.head_bytes_, bytes);
  }
  length_ = count;
}

uint64_t KvCache::bytes_per_position() const {
  return static_cast<uint64_t>(num_layers_ * num_heads_ * layout_.group_bytes()) * 2 / kernels::KvLayout::kGroup;
}

}  // namespace potstill::edge
