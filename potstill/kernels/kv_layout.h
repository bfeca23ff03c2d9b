// How the keys and the values of one head lie in memory.
#pragma once

#include <cstdint>

namespace potstill::kernels {

enum class KvType {
  kHalf,  // fp16
  kByte,  // 8 bits and an fp16 scale for each 32 elements of a head: value = scale * code, as in Q8_0
};

// Positions lie in groups of sixteen, so that the products with keys have sixteen positions in their lanes and need no
// sum across them. A group is
//             keys                                        values
//   kHalf     fp16 [stride, 16]                           fp16 [16, stride]
//   kByte     int8 [stride, 16], fp16 [num_scales, 16]    int8 [16, stride], fp16 [16, num_scales]
// with stride = head_dim rounded up to sixteen (the padding is zero) and one scale for each 32 elements begun.
struct KvLayout {
  KvType type = KvType::kHalf;
  int64_t head_dim = 0, stride = 0;

  static constexpr int64_t kGroup = 16;  // positions
  constexpr int64_t num_scales() const { return type == KvType::kHalf ? 0 : (stride + 31) / 32; }
  constexpr int64_t group_bytes() const {
    return kGroup * (type == KvType::kHalf ? 2 * stride : stride + 2 * num_scales());
  }
};

constexpr KvLayout kv_layout(KvType type, int64_t head_dim) { return {type, head_dim, (head_dim + 15) / 16 * 16}; }

}  // namespace potstill::kernels
