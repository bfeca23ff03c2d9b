// Attention over an fp16 cache: scores with sixteen positions in the lanes, then the weighted sum with sixteen elements
// of a value in the lanes. Neither needs a sum across lanes, and each key or value is converted once for four queries.
#pragma once

namespace potstill::kernels {
namespace {

constexpr int kAttentionQueries = 4;

// scores[i * width + p - begin] for positions [begin, end), both multiples of 16.
template <int kQueries>
void attention_scores(const AttentionTask& task, int64_t query, int64_t begin, int64_t end, float* scores,
                      int64_t width) {
  const float* const* q = task.queries + query;
  for (int64_t p = begin; p < end; p += 16) {
    const uint16_t* keys = task.keys + p * task.stride;
    F sum[kQueries];
    for (int i = 0; i < kQueries; ++i) sum[i] = zero();
    for (int64_t d = 0; d < task.head_dim; ++d) {
      const F key = load_half(keys + d * 16);
      for (int i = 0; i < kQueries; ++i) sum[i] = fma(key, broadcast(q[i][d]), sum[i]);
    }
    for (int i = 0; i < kQueries; ++i) store(scores + i * width + p - begin, mul(sum[i], broadcast(task.scale)));
  }
}

// Elements [d, d + 16 * kVectors) of kQueries outputs: Σ_p weight[p] value[p], times inverse.
template <int kQueries, int kVectors>
void weighted_values(const AttentionTask& task, int64_t query, int64_t begin, int64_t end, int64_t d,
                     const float* weights, int64_t width, const float* inverse) {
  F sum[kQueries][kVectors];
  for (int i = 0; i < kQueries; ++i) {
    for (int v = 0; v < kVectors; ++v) sum[i][v] = zero();
  }
  for (int64_t p = begin; p < end; ++p) {
    F value[kVectors];
    for (int v = 0; v < kVectors; ++v) value[v] = load_half(task.values + p * task.stride + d + 16 * v);
    for (int i = 0; i < kQueries; ++i) {
      const F weight = broadcast(weights[i * width + p - begin]);
      for (int v = 0; v < kVectors; ++v) sum[i][v] = fma(weight, value[v], sum[i][v]);
    }
  }
  for (int i = 0; i < kQueries; ++i) {
    for (int v = 0; v < kVectors; ++v) {
      float out[16];
      store(out, mul(sum[i][v], broadcast(inverse[i])));
      for (int64_t j = 0; j < 16 && d + 16 * v + j < task.head_dim; ++j)
        task.outputs[query + i][d + 16 * v + j] = out[j];
    }
  }
}

template <int kQueries>
void attend(const AttentionTask& task, int64_t query, float* scores) {
  int64_t first = task.begin[query], last = task.end[query];
  for (int i = 1; i < kQueries; ++i) {
    first = task.begin[query + i] < first ? task.begin[query + i] : first;
    last = task.end[query + i] > last ? task.end[query + i] : last;
  }
  const int64_t begin = first / 16 * 16, end = (last + 15) / 16 * 16, width = end - begin;
  attention_scores<kQueries>(task, query, begin, end, scores, width);
  float inverse[kQueries];
  for (int i = 0; i < kQueries; ++i) {
    float* row = scores + i * width;
    const int64_t from = task.begin[query + i] - begin, to = task.end[query + i] - begin;
    inverse[i] = 1.0f / exponentials(row + from, to - from);
    for (int64_t p = 0; p < from; ++p) row[p] = 0;  // not seen by this query
    for (int64_t p = to; p < width; ++p) row[p] = 0;
  }
  // A query that shares the call with a longer one adds zeros past its own end: its sum stays what it is alone.
  int64_t d = 0;
  for (; d + 16 * kAttentionVectors <= task.stride; d += 16 * kAttentionVectors) {
    weighted_values<kQueries, kAttentionVectors>(task, query, begin, last, d, scores, width, inverse);
  }
  for (; d < task.stride; d += 16) {
    weighted_values<kQueries, 1>(task, query, begin, last, d, scores, width, inverse);
  }
}

void attention(const AttentionTask& task, float* scratch) {
  int64_t query = 0;
  for (; query + kAttentionQueries <= task.num_queries; query += kAttentionQueries) {
    attend<kAttentionQueries>(task, query, scratch);
  }
  for (; query + 2 <= task.num_queries; query += 2) attend<2>(task, query, scratch);
  for (; query < task.num_queries; ++query) attend<1>(task, query, scratch);
}

void store_key(const float* key, int64_t head_dim, int64_t stride, int64_t position, uint16_t* keys) {
  uint16_t* block = keys + position / 16 * 16 * stride + position % 16;
  for (int64_t d = 0; d < head_dim; d += 16) {
    uint16_t halves[16];
    store_half(halves, load_up_to_16(key + d, head_dim - d));
    for (int64_t i = 0; i < 16 && d + i < head_dim; ++i) block[(d + i) * 16] = halves[i];
  }
}

void store_value(const float* value, int64_t head_dim, int64_t stride, int64_t position, uint16_t* values) {
  for (int64_t d = 0; d < head_dim; d += 16) {
    store_half(values + position * stride + d, load_up_to_16(value + d, head_dim - d));
  }
}

}  // namespace
}  // namespace potstill::kernels
