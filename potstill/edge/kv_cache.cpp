#include "potstill/edge/kv_cache.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include "potstill/base/check.h"
#include "potstill/base/checked_math.h"
#include "potstill/base/error.h"
#include "potstill/base/log.h"

namespace potstill::edge {

KvCache::KvCache(const ModelConfig& config, int64_t capacity)
    : num_layers_(config.num_hidden_layers),
      num_heads_(config.num_key_value_heads),
      stride_(round_up<int64_t>(config.head_dim, 16)),
      capacity_(capacity),
      rounded_(round_up<int64_t>(capacity, 16)) {
  POTSTILL_CHECK(capacity > 0);
  bytes_ = static_cast<size_t>(bytes_per_position()) * static_cast<size_t>(rounded_);
  void* memory = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    throw Error(ErrorKind::kMemory, "KV cache",
                fmt::format("cannot reserve {} for {} positions", format_bytes(bytes_), capacity),
                "ask for a shorter --context");
  }
  // A huge page a head and layer would take 2 MB for the first position of each.
  ::madvise(memory, bytes_, MADV_NOHUGEPAGE);
  data_ = static_cast<uint16_t*>(memory);
}

KvCache::~KvCache() { ::munmap(data_, bytes_); }

void KvCache::set_length(int64_t length) {
  POTSTILL_CHECK(length >= 0 && length <= capacity_);
  length_ = length;
}

uint64_t KvCache::bytes_per_position() const {
  return static_cast<uint64_t>(num_layers_ * num_heads_ * stride_) * 2 * sizeof(uint16_t);
}

}  // namespace potstill::edge
