// One new token for each of many sequences against their key/value caches, on the CPU.
#pragma once

#include <cstdint>

namespace potstill {

struct DecodeAttention {
  int64_t num_slots, num_heads, num_kv_heads, head_dim, capacity, sliding_window;

  const float* q;          // [slots, H, Dh], not rotated
  const float* k;          // [slots, Hk, Dh], not rotated
  const float* v;          // [slots, Hk, Dh]
  const float* cos;        // [max position, Dh / 2]
  const float* sin;        //
  const int64_t* lengths;  // [slots] tokens in the cache before this one, which is also its position; -1 = an idle slot
  float* k_cache;          // [slots, Hk, capacity, Dh], rotated
  float* v_cache;          // [slots, Hk, capacity, Dh]
  float* out;              // [slots, H, Dh]; rows of idle slots become 0
};

// Rotates q and k, appends k and v to the cache, and attends. A row's result depends on its own slot alone, bit by bit.
void decode_attention(const DecodeAttention& a);

}  // namespace potstill
