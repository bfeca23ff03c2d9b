// Attention over a cache of keys and values, a block of positions at a time: the scores of a block, what they change of
// the softmax's largest and sum so far, and the weighted values onto the output so far (Dao et al., arXiv:2205.14135,
// algorithm 1). Memory does not grow with the positions, and keys and values are unpacked once for all queries.
//
// Blocks begin at multiples of kAttentionBlock whatever a task's range, and a block that a query does not see leaves it
// as it is: a query's result is the same alone and among others.
#pragma once

namespace potstill::kernels {
namespace {

constexpr int kAttentionQueries = 4;

inline const std::byte* group_of(const KvLayout& layout, const std::byte* data, int64_t position) {
  return data + position / KvLayout::kGroup * layout.group_bytes();
}

// ---- sixteen positions of keys: element d of each, in order of d

struct HalfKeys {
  const uint16_t* data;
  HalfKeys(const KvLayout& layout, const std::byte* keys, int64_t position)
      : data(reinterpret_cast<const uint16_t*>(group_of(layout, keys, position))) {}
  void begin_scale(int64_t) {}
  F element(int64_t d) const { return load_half(data + d * 16); }
};
struct ByteKeys {
  const int8_t* codes;
  const uint16_t* scales;
  F scale;
  ByteKeys(const KvLayout& layout, const std::byte* keys, int64_t position)
      : codes(reinterpret_cast<const int8_t*>(group_of(layout, keys, position))),
        scales(reinterpret_cast<const uint16_t*>(codes + 16 * layout.stride)),
        scale(zero()) {}
  void begin_scale(int64_t d) { scale = load_half(scales + d / 32 * 16); }
  F element(int64_t d) const { return mul(load_i8(codes + d * 16), scale); }
};
struct UnpackedKeys {
  const float* data;
  void begin_scale(int64_t) {}
  F element(int64_t d) const { return load(data + d * 16); }
};

// ---- sixteen positions of values: elements [d, d + 16) of one

struct HalfValues {
  const uint16_t* data;
  int64_t stride;
  HalfValues(const KvLayout& layout, const std::byte* values, int64_t position, float*)
      : data(reinterpret_cast<const uint16_t*>(group_of(layout, values, position))), stride(layout.stride) {}
  F elements(int64_t position, int64_t d) const { return load_half(data + position * stride + d); }
};
struct ByteValues {
  const int8_t* codes;
  const float* scales;  // [16, num_scales]
  int64_t stride, num_scales;
  ByteValues(const KvLayout& layout, const std::byte* values, int64_t position, float* scratch)
      : codes(reinterpret_cast<const int8_t*>(group_of(layout, values, position))),
        scales(scratch),
        stride(layout.stride),
        num_scales(layout.num_scales()) {
    const auto* halves = reinterpret_cast<const uint16_t*>(codes + 16 * stride);
    for (int64_t i = 0; i < 16 * num_scales; i += 16) store(scratch + i, load_half(halves + i));
  }
  F elements(int64_t position, int64_t d) const {
    return mul(load_i8(codes + position * stride + d), broadcast(scales[position * num_scales + d / 32]));
  }
};
struct UnpackedValues {
  const float* data;  // of the first of the sixteen
  int64_t stride;
  F elements(int64_t position, int64_t d) const { return load(data + position * stride + d); }
};

// ---- one block

// scores[i, group * 16 + lane] = scale * keys · queries[i]; kAttentionBlock scores a row.
template <int kQueries, int kGroups, class Keys>
void score_groups(Keys* groups, const float* const* queries, int64_t head_dim, float scale, float* scores) {
  F sum[kQueries][kGroups];
  for (int i = 0; i < kQueries; ++i) {
    for (int g = 0; g < kGroups; ++g) sum[i][g] = zero();
  }
  for (int64_t begin = 0; begin < head_dim; begin += 32) {
    for (int g = 0; g < kGroups; ++g) groups[g].begin_scale(begin);
    const int64_t end = begin + 32 < head_dim ? begin + 32 : head_dim;
    for (int64_t d = begin; d < end; ++d) {
      F keys[kGroups];
      for (int g = 0; g < kGroups; ++g) keys[g] = groups[g].element(d);
      for (int i = 0; i < kQueries; ++i) {
        const F x = broadcast(queries[i][d]);
        for (int g = 0; g < kGroups; ++g) sum[i][g] = fma(keys[g], x, sum[i][g]);
      }
    }
  }
  for (int i = 0; i < kQueries; ++i) {
    for (int g = 0; g < kGroups; ++g) store(scores + i * kAttentionBlock + g * 16, mul(sum[i][g], broadcast(scale)));
  }
}

// outputs[i, d .. d + 16 * kVectors) = factors[i] * itself + Σ_p weights[i, p] value[p], over `count` positions.
// values_of(group) gives sixteen positions' values.
template <int kQueries, int kVectors, class ValuesOf>
void add_values(const ValuesOf& values_of, int64_t count, int64_t d, const float* weights, const float* factors,
                float* outputs, int64_t stride) {
  F sum[kQueries][kVectors];
  for (int i = 0; i < kQueries; ++i) {
    for (int v = 0; v < kVectors; ++v) {
      sum[i][v] = mul(load(outputs + i * stride + d + 16 * v), broadcast(factors[i]));
    }
  }
  for (int64_t group = 0; group * 16 < count; ++group) {
    const auto values = values_of(group);
    const int64_t positions = count - group * 16 < 16 ? count - group * 16 : 16;
    for (int64_t p = 0; p < positions; ++p) {
      F value[kVectors];
      for (int v = 0; v < kVectors; ++v) value[v] = values.elements(p, d + 16 * v);
      for (int i = 0; i < kQueries; ++i) {
        const F weight = broadcast(weights[i * kAttentionBlock + group * 16 + p]);
        for (int v = 0; v < kVectors; ++v) sum[i][v] = fma(weight, value[v], sum[i][v]);
      }
    }
  }
  for (int i = 0; i < kQueries; ++i) {
    for (int v = 0; v < kVectors; ++v) store(outputs + i * stride + d + 16 * v, sum[i][v]);
  }
}

// What is known of each query's softmax after the blocks so far.
struct AttentionState {
  float *outputs /* [num_queries, stride] */, *largest, *sums;
};

// Scores of one query's row become weights: e^(score - largest), zero where the query does not see. Returns what the
// outputs so far are to be multiplied with.
inline float weigh_block(float* row, int64_t from, int64_t to, float& largest, float& sum) {
  if (from >= to) {
    for (int64_t p = 0; p < kAttentionBlock; p += 16) store(row + p, zero());
    return 1.0f;
  }
  const float top = largest_of(row + from, to - from);
  float factor = 1.0f;
  if (top > largest) {
    float exponent[16];
    store(exponent, exp(broadcast(largest - top)));
    factor = sum == 0.0f ? 0.0f : exponent[0];  // nothing was seen before: there is no largest
    largest = top;
  }
  const float added = exponentials(row + from, to - from, largest);
  sum = sum * factor + added;
  for (int64_t p = 0; p < from; ++p) row[p] = 0;
  for (int64_t p = to; p < kAttentionBlock; ++p) row[p] = 0;
  return factor;
}

// Queries [query, query + kQueries) and positions [begin, begin + kAttentionBlock).
template <int kQueries, class KeysOf, class ValuesOf>
void attend_block(const AttentionTask& task, int64_t query, int64_t begin, const KeysOf& keys_of,
                  const ValuesOf& values_of, const AttentionState& state, float* weights) {
  const int64_t stride = task.layout.stride, block_end = begin + kAttentionBlock;
  int64_t from[kQueries], to[kQueries], count = 0;  // of the block's positions
  for (int i = 0; i < kQueries; ++i) {
    const int64_t first = task.begin[query + i], last = task.end[query + i];
    from[i] = first > begin ? first - begin : 0;
    to[i] = (last < block_end ? last : block_end) - begin;
    if (from[i] < to[i] && to[i] > count) count = to[i];
  }
  if (count == 0) return;
  const float* const* queries = task.queries + query;
  const int64_t groups = (count + 15) / 16;
  const auto score = [&]<int kGroups>(int64_t group) {
    auto keys = keys_of.template operator()<kGroups>(group);
    score_groups<kQueries, kGroups>(keys.groups, queries, task.layout.head_dim, task.scale, weights + group * 16);
  };
  int64_t group = 0;
  for (; group + kAttentionGroups <= groups; group += kAttentionGroups) {
    score.template operator()<kAttentionGroups>(group);
  }
  for (; group < groups; ++group) score.template operator()<1>(group);
  float factors[kQueries];
  for (int i = 0; i < kQueries; ++i) {
    factors[i] =
        weigh_block(weights + i * kAttentionBlock, from[i], to[i], state.largest[query + i], state.sums[query + i]);
  }
  float* outputs = state.outputs + query * stride;
  int64_t d = 0;
  for (; d + 16 * kAttentionVectors <= stride; d += 16 * kAttentionVectors) {
    add_values<kQueries, kAttentionVectors>(values_of, count, d, weights, factors, outputs, stride);
  }
  for (; d < stride; d += 16) add_values<kQueries, 1>(values_of, count, d, weights, factors, outputs, stride);
}

template <class Keys, int kGroups>
struct KeyGroups {
  Keys groups[kGroups];
};

template <class KeysOf, class ValuesOf>
void attend_queries(const AttentionTask& task, int64_t begin, const KeysOf& keys_of, const ValuesOf& values_of,
                    const AttentionState& state, float* weights) {
  int64_t query = 0;
  for (; query + kAttentionQueries <= task.num_queries; query += kAttentionQueries) {
    attend_block<kAttentionQueries>(task, query, begin, keys_of, values_of, state, weights);
  }
  for (; query + 2 <= task.num_queries; query += 2) {
    attend_block<2>(task, query, begin, keys_of, values_of, state, weights);
  }
  for (; query < task.num_queries; ++query) {
    attend_block<1>(task, query, begin, keys_of, values_of, state, weights);
  }
}

// Positions [begin, end) for few queries: each unpacks what it needs.
template <class Keys, class Values>
void attend_packed(const AttentionTask& task, int64_t begin, const AttentionState& state, float* weights,
                   float* scales) {
  const auto keys_of = [&]<int kGroups>(int64_t group) {
    const auto at = [&](int64_t g) { return Keys(task.layout, task.keys, begin + (group + g) * 16); };
    if constexpr (kGroups == 1) return KeyGroups<Keys, 1>{{at(0)}};
    if constexpr (kGroups == 4) return KeyGroups<Keys, 4>{{at(0), at(1), at(2), at(3)}};
  };
  const auto values_of = [&](int64_t group) { return Values(task.layout, task.values, begin + group * 16, scales); };
  attend_queries(task, begin, keys_of, values_of, state, weights);
}

// The same for many: unpacked first, into floats, positions [begin, end) of them.
template <class Keys, class Values>
void attend_unpacked(const AttentionTask& task, int64_t begin, int64_t end, const AttentionState& state, float* weights,
                     float* scales, float* tiles) {
  const int64_t stride = task.layout.stride, head_dim = task.layout.head_dim;
  float *key_tile = tiles, *value_tile = tiles + kAttentionBlock * stride;
  for (int64_t group = 0; begin + group * 16 < end; ++group) {
    Keys keys(task.layout, task.keys, begin + group * 16);
    for (int64_t d = 0; d < head_dim; ++d) {
      if (d % 32 == 0) keys.begin_scale(d);
      store(key_tile + (group * stride + d) * 16, keys.element(d));
    }
    const Values values(task.layout, task.values, begin + group * 16, scales);
    for (int64_t p = 0; p < 16 && begin + group * 16 + p < end; ++p) {
      for (int64_t d = 0; d < stride; d += 16) {
        store(value_tile + (group * 16 + p) * stride + d, values.elements(p, d));
      }
    }
  }
  const auto keys_of = [&]<int kGroups>(int64_t group) {
    KeyGroups<UnpackedKeys, kGroups> keys;
    for (int64_t g = 0; g < kGroups; ++g) keys.groups[g].data = key_tile + (group + g) * 16 * stride;
    return keys;
  };
  const auto values_of = [&](int64_t group) { return UnpackedValues{value_tile + group * 16 * stride, stride}; };
  attend_queries(task, begin, keys_of, values_of, state, weights);
}

template <class Keys, class Values>
void attend(const AttentionTask& task, float* scratch) {
  const int64_t stride = task.layout.stride, num_queries = task.num_queries;
  float* tiles = scratch;
  float* weights = tiles + 2 * kAttentionBlock * stride;  // [kAttentionQueries, kAttentionBlock]
  float* scales = weights + kAttentionQueries * kAttentionBlock;
  float* outputs = scales + 16 * task.layout.num_scales() + 16;
  const AttentionState state{outputs, outputs + num_queries * stride, outputs + num_queries * (stride + 1)};
  int64_t first = task.begin[0], last = task.end[0];
  for (int64_t i = 0; i < num_queries; ++i) {
    first = task.begin[i] < first ? task.begin[i] : first;
    last = task.end[i] > last ? task.end[i] : last;
    state.largest[i] = -__builtin_inff();
    state.sums[i] = 0;
    for (int64_t d = 0; d < stride; d += 16) store(outputs + i * stride + d, zero());
  }
  for (int64_t begin = first / kAttentionBlock * kAttentionBlock; begin < last; begin += kAttentionBlock) {
    if (num_queries <= kAttentionQueries) {
      attend_packed<Keys, Values>(task, begin, state, weights, scales);
    } else {
      const int64_t end = begin + kAttentionBlock < last ? begin + kAttentionBlock : last;
      attend_unpacked<Keys, Values>(task, begin, end, state, weights, scales, tiles);
    }
  }
  for (int64_t i = 0; i < num_queries; ++i) {
    const float inverse = 1.0f / state.sums[i];
    for (int64_t d = 0; d < task.layout.head_dim; ++d) task.outputs[i][d] = outputs[i * stride + d] * inverse;
  }
}

void attention(const AttentionTask& task, float* scratch) {
  task.layout.type == KvType::kHalf ? attend<HalfKeys, HalfValues>(task, scratch)
                                    : attend<ByteKeys, ByteValues>(task, scratch);
}

// ---- filling the cache

// Calls put(first element, codes) for each sixteen elements and put.set_scale(index, fp16) for each 32.
template <class Put>
void for_each_scaled(const float* x, int64_t head_dim, const Put& put) {
  for (int64_t begin = 0; begin < head_dim; begin += 32) {
    const F v[2] = {load_up_to_16(x + begin, head_dim - begin),
                    head_dim - begin > 16 ? load_up_to_16(x + begin + 16, head_dim - begin - 16) : zero()};
    const float largest = reduce_max(max(abs(v[0]), abs(v[1])));
    uint16_t half[16];
    store_half(half, broadcast(largest / 127.0f));
    float scale[16];
    store(scale, load_half(half));  // what will be read: codes are rounded against it
    const F inverse = broadcast(scale[0] > 0 ? 1.0f / scale[0] : 0.0f);
    for (int i = 0; i < 2 && begin + 16 * i < head_dim; ++i) {
      // A scale among fp16's smallest may be rounded down far enough for a code beyond 127.
      const F code = max(min(round_even(mul(v[i], inverse)), broadcast(127.0f)), broadcast(-127.0f));
      int8_t codes[16];
      store_i8(codes, code);
      put(begin + 16 * i, codes);
    }
    put.set_scale(begin / 32, half[0]);
  }
}

void store_key(const KvLayout& layout, const float* key, int64_t position, std::byte* keys) {
  std::byte* group = keys + position / KvLayout::kGroup * layout.group_bytes();
  const int64_t lane = position % KvLayout::kGroup;
  if (layout.type == KvType::kHalf) {
    auto* out = reinterpret_cast<uint16_t*>(group) + lane;
    for (int64_t d = 0; d < layout.head_dim; d += 16) {
      uint16_t halves[16];
      store_half(halves, load_up_to_16(key + d, layout.head_dim - d));
      for (int64_t i = 0; i < 16 && d + i < layout.head_dim; ++i) out[(d + i) * 16] = halves[i];
    }
    return;
  }
  struct Put {
    int8_t* codes;
    uint16_t* scales;
    int64_t head_dim;
    void operator()(int64_t d, const int8_t* values) const {
      for (int64_t i = 0; i < 16 && d + i < head_dim; ++i) codes[(d + i) * 16] = values[i];
    }
    void set_scale(int64_t index, uint16_t half) const { scales[index * 16] = half; }
  };
  for_each_scaled(key, layout.head_dim,
                  Put{reinterpret_cast<int8_t*>(group) + lane,
                      reinterpret_cast<uint16_t*>(group + 16 * layout.stride) + lane, layout.head_dim});
}

void store_value(const KvLayout& layout, const float* value, int64_t position, std::byte* values) {
  std::byte* group = values + position / KvLayout::kGroup * layout.group_bytes();
  const int64_t at = position % KvLayout::kGroup;
  if (layout.type == KvType::kHalf) {
    auto* out = reinterpret_cast<uint16_t*>(group) + at * layout.stride;
    for (int64_t d = 0; d < layout.head_dim; d += 16)
      store_half(out + d, load_up_to_16(value + d, layout.head_dim - d));
    return;
  }
  struct Put {
    int8_t* codes;
    uint16_t* scales;
    void operator()(int64_t d, const int8_t* x) const { std::memcpy(codes + d, x, 16); }
    void set_scale(int64_t index, uint16_t half) const { scales[index] = half; }
  };
  for_each_scaled(value, layout.head_dim,
                  Put{reinterpret_cast<int8_t*>(group) + at * layout.stride,
                      reinterpret_cast<uint16_t*>(group + 16 * layout.stride) + at * layout.num_scales()});
}

}  // namespace
}  // namespace potstill::kernels
