#include "potstill/nn/decode_attention.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "potstill/nn/clones.h"

namespace potstill {
namespace {

constexpr int64_t kLanes = 16;  // partial sums: a fixed number, so that every clone adds in one order

// scores[t] = scale · q · k[t] for count rows of k.
POTSTILL_CLONES void score_keys(const float* q, const float* k, int64_t count, int64_t head_dim, float scale,
                                float* scores) {
  for (int64_t t = 0; t < count; ++t, k += head_dim) {
    float lanes[kLanes] = {};
    int64_t i = 0;
    for (; i + kLanes <= head_dim; i += kLanes) {
      for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += q[i + lane] * k[i + lane];
    }
    for (int64_t lane = 0; i < head_dim; ++i, ++lane) lanes[lane] += q[i] * k[i];
    for (int64_t width = kLanes / 2; width > 0; width /= 2) {
      for (int64_t lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
    }
    scores[t] = lanes[0] * scale;
  }
}

// out = Σ weights[t] · v[t]
POTSTILL_CLONES void mix_values(const float* weights, const float* v, int64_t count, int64_t head_dim, float* out) {
  std::memset(out, 0, static_cast<size_t>(head_dim) * sizeof(float));
  for (int64_t t = 0; t < count; ++t, v += head_dim) {
    const float weight = weights[t];
    for (int64_t i = 0; i < head_dim; ++i) out[i] += weight * v[i];
  }
}

void rotate(const float* x, const float* cos, const float* sin, int64_t head_dim, float* out) {
  const int64_t half = head_dim / 2;
  for (int64_t i = 0; i < half; ++i) {
    const float a = x[i], b = x[i + half];
    out[i] = a * cos[i] - b * sin[i];
    out[i + half] = b * cos[i] + a * sin[i];
  }
}

void softmax(float* scores, int64_t count) {
  const float top = *std::max_element(scores, scores + count);
  float sum = 0;
  for (int64_t t = 0; t < count; ++t) sum += scores[t] = std::exp(scores[t] - top);
  for (int64_t t = 0; t < count; ++t) scores[t] /= sum;
}

// One kv head of one slot, and the query heads that share it.
void attend(const DecodeAttention& a, int64_t slot, int64_t kv_head, std::vector<float>& scratch) {
  const int64_t group = a.num_heads / a.num_kv_heads, length = a.lengths[slot];
  float* out = a.out + (slot * a.num_heads + kv_head * group) * a.head_dim;
  if (length < 0) {
    std::memset(out, 0, static_cast<size_t>(group * a.head_dim) * sizeof(float));
    return;
  }
  const float* cos = a.cos + length * (a.head_dim / 2);
  const float* sin = a.sin + length * (a.head_dim / 2);
  const int64_t new_row = slot * a.num_kv_heads + kv_head;
  float* k_cache = a.k_cache + new_row * a.capacity * a.head_dim;
  float* v_cache = a.v_cache + new_row * a.capacity * a.head_dim;
  rotate(a.k + new_row * a.head_dim, cos, sin, a.head_dim, k_cache + length * a.head_dim);
  std::copy_n(a.v + new_row * a.head_dim, a.head_dim, v_cache + length * a.head_dim);

  const int64_t first = a.sliding_window > 0 ? std::max<int64_t>(0, length + 1 - a.sliding_window) : 0;
  const int64_t count = length + 1 - first;
  scratch.resize(static_cast<size_t>(a.head_dim + count));
  float* q = scratch.data();
  float* scores = q + a.head_dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(a.head_dim));
  for (int64_t g = 0; g < group; ++g) {
    rotate(a.q + (slot * a.num_heads + kv_head * group + g) * a.head_dim, cos, sin, a.head_dim, q);
    score_keys(q, k_cache + first * a.head_dim, count, a.head_dim, scale, scores);
    softmax(scores, count);
    mix_values(scores, v_cache + first * a.head_dim, count, a.head_dim, out + g * a.head_dim);
  }
}

}  // namespace

void decode_attention(const DecodeAttention& a) {
  // Waking a thread costs as much as some ten thousand products.
  constexpr int64_t kProductsWorthAThread = 32768;
  const int64_t longest = std::max<int64_t>(1, *std::max_element(a.lengths, a.lengths + a.num_slots));
  const int64_t grain =
      std::max<int64_t>(1, kProductsWorthAThread * a.num_kv_heads / (2 * longest * a.num_heads * a.head_dim));
  at::parallel_for(0, a.num_slots * a.num_kv_heads, grain, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch;
    for (int64_t i = begin; i < end; ++i) attend(a, i / a.num_kv_heads, i % a.num_kv_heads, scratch);
  });
}

}  // namespace potstill
