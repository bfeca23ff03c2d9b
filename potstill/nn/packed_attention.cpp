// Flash attention's arithmetic (arXiv 2205.14135) without its tiling: the keys of one sequence and head fit the cache,
// so a block of queries meets all of them at once. Everything inside is fp32; k, v and q are converted once.
#include "potstill/nn/packed_attention.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <utility>

#include "potstill/base/check.h"
#include "potstill/nn/clones.h"
#include "potstill/nn/small_product.h"
#include "potstill/nn/value_type.h"

namespace potstill {
namespace {

constexpr int64_t kQueryRows = 32;  // queries that meet the keys together: bounds what the causal half wastes
constexpr int64_t kChunks = 8;      // of sequences with a common parent: partial sums of its gradient

int64_t padded(int64_t count) { return (count + kLanes - 1) / kLanes * kLanes; }

// Rows of the packed tensors that one sequence sees: its parents', front to back, then its own.
struct Seen {
  std::vector<int64_t> rows;
  int64_t own = 0;  // index in rows of its first own row, and that row's position
};

Seen seen_by(const PackedAttention& a, int64_t sequence) {
  std::vector<int64_t> chain{sequence};
  while (!a.parent.empty() && a.parent[static_cast<size_t>(chain.back())] >= 0) {
    chain.push_back(a.parent[static_cast<size_t>(chain.back())]);
  }
  Seen seen;
  for (auto s = chain.rbegin(); s != chain.rend(); ++s) {
    const auto index = static_cast<size_t>(*s);
    if (*s == sequence) seen.own = std::ssize(seen.rows);
    for (int64_t row = a.offsets[index]; row < a.offsets[index + 1]; ++row) seen.rows.push_back(row);
  }
  return seen;
}

// What one sequence and kv head work on. All scratch is zero where it pads.
struct Scratch {
  std::vector<float> values;
  float *k_t = nullptr, *v_t = nullptr, *k = nullptr, *v = nullptr;  // [Dh, n'] twice, [n, Dh'] twice
  float *q = nullptr, *out = nullptr, *s = nullptr, *ds = nullptr;   // [32, Dh'] twice, [32, n'] twice
  float *grad_k = nullptr, *grad_v = nullptr, *block = nullptr;      // [n, Dh'] twice, [32, Dh']

  void take(int64_t n, int64_t head_dim) {
    const auto keys = static_cast<size_t>(padded(n)), width = static_cast<size_t>(padded(head_dim));
    const size_t by_keys = width * keys, by_rows = width * kQueryRows, scores = keys * kQueryRows;
    values.assign(6 * by_keys + 3 * by_rows + 2 * scores, 0.f);
    float* at = values.data();
    for (float** part : {&k_t, &v_t, &k, &v, &grad_k, &grad_v}) *part = std::exchange(at, at + by_keys);
    for (float** part : {&q, &out, &block}) *part = std::exchange(at, at + by_rows);
    for (float** part : {&s, &ds}) *part = std::exchange(at, at + scores);
  }
};

// Where one head of a packed tensor's row begins: data + row · stride.
template <class T>
struct Head {
  T* data;
  int64_t stride;
};

template <class T>
POTSTILL_INLINE void load_rows(Head<const T> from, const int64_t* rows, int64_t count, int64_t head_dim, int64_t width,
                               float scale, float* to) {
  for (int64_t t = 0; t < count; ++t) {
    const T* x = from.data + rows[t] * from.stride;
    for (int64_t d = 0; d < head_dim; ++d) to[t * width + d] = scale * load_value(x + d);
  }
}

POTSTILL_INLINE void transpose(const float* x, int64_t rows, int64_t columns, int64_t width, int64_t stride,
                               float* to) {
  for (int64_t c = 0; c < columns; ++c) {
    for (int64_t r = 0; r < rows; ++r) to[c * stride + r] = x[r * width + c];
  }
}

template <class T>
POTSTILL_INLINE void store_rows(const float* from, int64_t width, Head<T> to, const int64_t* rows, int64_t count,
                                int64_t head_dim) {
  for (int64_t t = 0; t < count; ++t) {
    T* y = to.data + rows[t] * to.stride;
    for (int64_t d = 0; d < head_dim; ++d) store_value(y + d, from[t * width + d]);
  }
}

POTSTILL_INLINE float lane_total(float* lanes) {
  for (int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (int64_t lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}

// exp(s - top) over keys [low, high) of a row, 0 elsewhere; returns the sum. In place.
POTSTILL_INLINE float exponentials(float* s, int64_t low, int64_t high, int64_t size, float top) {
  for (int64_t i = 0; i < low; ++i) s[i] = 0;
  float lanes[kLanes] = {};
  int64_t i = low;
  for (; i + kLanes <= high; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += s[i + lane] = loop_exp(s[i + lane] - top);
  }
  for (int64_t lane = 0; i < high; ++i, ++lane) lanes[lane] += s[i] = loop_exp(s[i] - top);
  for (i = high; i < size; ++i) s[i] = 0;
  return lane_total(lanes);
}

POTSTILL_INLINE float largest(const float* x, int64_t low, int64_t high) {
  float top = x[low];
  for (int64_t i = low + 1; i < high; ++i) top = x[i] > top ? x[i] : top;
  return top;
}

struct Shape {
  int64_t head_dim, width, keys, keys_padded, own, window, group, num_heads;
  float scale;

  // Keys [first, position] that a query sees.
  int64_t first_key(int64_t position) const { return window > 0 ? std::max<int64_t>(0, position - window + 1) : 0; }
};

// Scores of queries [begin, begin + count) of the sequence, whose scale is in q already; returns how many keys the last
// of them sees.
POTSTILL_INLINE int64_t block_scores(const Shape& shape, const Scratch& scratch, int64_t begin, int64_t count) {
  const int64_t seen = shape.own + begin + count;
  product<false>(scratch.q, shape.width, 1, scratch.k_t, shape.keys_padded, count, shape.head_dim,
                 (seen + kLanes - 1) / kLanes * kLanes, scratch.s, shape.keys_padded);
  return seen;
}

template <class T>
POTSTILL_INLINE void attend(const Shape& shape, Scratch& scratch, Head<const T> q, Head<const T> k, Head<const T> v,
                            Head<T> out, float* log_sum_exp, const int64_t* rows) {
  load_rows(k, rows, shape.keys, shape.head_dim, shape.width, 1.f, scratch.k);
  load_rows(v, rows, shape.keys, shape.head_dim, shape.width, 1.f, scratch.v);
  transpose(scratch.k, shape.keys, shape.head_dim, shape.width, shape.keys_padded, scratch.k_t);
  for (int64_t head = 0; head < shape.group; ++head) {
    const Head<const T> head_q{q.data + head * shape.head_dim, q.stride};
    const Head<T> head_out{out.data + head * shape.head_dim, out.stride};
    for (int64_t begin = 0; begin < shape.keys - shape.own; begin += kQueryRows) {
      const int64_t count = std::min(kQueryRows, shape.keys - shape.own - begin);
      const int64_t* block_rows = rows + shape.own + begin;
      load_rows(head_q, block_rows, count, shape.head_dim, shape.width, shape.scale, scratch.q);
      const int64_t seen = block_scores(shape, scratch, begin, count);
      for (int64_t t = 0; t < count; ++t) {
        float* s = scratch.s + t * shape.keys_padded;
        const int64_t position = shape.own + begin + t, low = shape.first_key(position);
        const float top = largest(s, low, position + 1);
        const float sum = exponentials(s, low, position + 1, seen, top);
        log_sum_exp[block_rows[t] * shape.num_heads + head] = top + std::log(sum);
        const float inverse = 1.f / sum;
        for (int64_t i = low; i <= position; ++i) s[i] *= inverse;
      }
      product<false>(scratch.s, shape.keys_padded, 1, scratch.v, shape.width, count, seen, shape.width, scratch.out,
                     shape.width);
      store_rows(scratch.out, shape.width, head_out, block_rows, count, shape.head_dim);
    }
  }
}

// Leaves the gradients of the keys and values seen in scratch.grad_k and grad_v [n, Dh'].
template <class T>
POTSTILL_INLINE void attend_backward(const Shape& shape, Scratch& scratch, Head<const T> grad, Head<const T> q,
                                     Head<const T> k, Head<const T> v, Head<const T> out, const float* log_sum_exp,
                                     Head<T> grad_q, const int64_t* rows) {
  load_rows(k, rows, shape.keys, shape.head_dim, shape.width, 1.f, scratch.k);
  load_rows(v, rows, shape.keys, shape.head_dim, shape.width, 1.f, scratch.v);
  transpose(scratch.k, shape.keys, shape.head_dim, shape.width, shape.keys_padded, scratch.k_t);
  transpose(scratch.v, shape.keys, shape.head_dim, shape.width, shape.keys_padded, scratch.v_t);
  for (int64_t head = 0; head < shape.group; ++head) {
    const auto head_of = [&](Head<const T> x) { return Head<const T>{x.data + head * shape.head_dim, x.stride}; };
    for (int64_t begin = 0; begin < shape.keys - shape.own; begin += kQueryRows) {
      const int64_t count = std::min(kQueryRows, shape.keys - shape.own - begin);
      const int64_t* block_rows = rows + shape.own + begin;
      load_rows(head_of(q), block_rows, count, shape.head_dim, shape.width, shape.scale, scratch.q);
      load_rows(head_of(out), block_rows, count, shape.head_dim, shape.width, 1.f, scratch.block);
      load_rows(head_of(grad), block_rows, count, shape.head_dim, shape.width, 1.f, scratch.out);
      const int64_t seen = block_scores(shape, scratch, begin, count);
      // dP = dO Vᵀ;  dS = P ∘ (dP - Σ dO ∘ O)
      product<false>(scratch.out, shape.width, 1, scratch.v_t, shape.keys_padded, count, shape.head_dim,
                     (seen + kLanes - 1) / kLanes * kLanes, scratch.ds, shape.keys_padded);
      for (int64_t t = 0; t < count; ++t) {
        float *s = scratch.s + t * shape.keys_padded, *ds = scratch.ds + t * shape.keys_padded;
        const int64_t position = shape.own + begin + t, low = shape.first_key(position);
        exponentials(s, low, position + 1, seen, log_sum_exp[block_rows[t] * shape.num_heads + head]);
        float lanes[kLanes] = {};
        for (int64_t d = 0; d < shape.width; d += kLanes) {
          for (int64_t lane = 0; lane < kLanes; ++lane) {
            lanes[lane] += scratch.out[t * shape.width + d + lane] * scratch.block[t * shape.width + d + lane];
          }
        }
        const float mean = lane_total(lanes);
        for (int64_t i = 0; i < seen; ++i) ds[i] = s[i] * (ds[i] - mean);
      }
      product<true>(scratch.ds, 1, shape.keys_padded, scratch.q, shape.width, seen, count, shape.width, scratch.grad_k,
                    shape.width);  // q has the scale in it
      product<true>(scratch.s, 1, shape.keys_padded, scratch.out, shape.width, seen, count, shape.width, scratch.grad_v,
                    shape.width);
      product<false>(scratch.ds, shape.keys_padded, 1, scratch.k, shape.width, count, seen, shape.width, scratch.block,
                     shape.width);
      for (int64_t i = 0; i < count * shape.width; ++i) scratch.block[i] *= shape.scale;
      const Head<T> head_grad{grad_q.data + head * shape.head_dim, grad_q.stride};
      store_rows(scratch.block, shape.width, head_grad, block_rows, count, shape.head_dim);
    }
  }
}

// One clone of each for each dtype: an attribute of a function, which a template cannot carry.
#define POTSTILL_ATTENTION(T)                                                                                          \
  POTSTILL_CLONES void attend_head(const Shape& shape, Scratch& scratch, Head<const T> q, Head<const T> k,             \
                                   Head<const T> v, Head<T> out, float* log_sum_exp, const int64_t* rows) {            \
    attend(shape, scratch, q, k, v, out, log_sum_exp, rows);                                                           \
  }                                                                                                                    \
  POTSTILL_CLONES void attend_head_backward(const Shape& shape, Scratch& scratch, Head<const T> grad, Head<const T> q, \
                                            Head<const T> k, Head<const T> v, Head<const T> out,                       \
                                            const float* log_sum_exp, Head<T> grad_q, const int64_t* rows) {           \
    attend_backward(shape, scratch, grad, q, k, v, out, log_sum_exp, grad_q, rows);                                    \
  }                                                                                                                    \
  POTSTILL_CLONES void store_head(const float* from, int64_t width, Head<T> to, const int64_t* rows, int64_t count,    \
                                  int64_t head_dim) {                                                                  \
    store_rows(from, width, to, rows, count, head_dim);                                                                \
  }
POTSTILL_ATTENTION(float)
POTSTILL_ATTENTION(Bf16Bits)
#undef POTSTILL_ATTENTION

Shape shape_of(const PackedAttention& a, const Seen& seen) {
  const int64_t keys = std::ssize(seen.rows);
  return {.head_dim = a.head_dim,
          .width = padded(a.head_dim),
          .keys = keys,
          .keys_padded = padded(keys),
          .own = seen.own,
          .window = a.sliding_window,
          .group = a.num_heads / a.num_kv_heads,
          .num_heads = a.num_heads,
          .scale = 1.f / std::sqrt(static_cast<float>(a.head_dim))};
}

// f(item, its thread's scratch) for items [0, count), the next free thread taking the next one.
template <class F>
void for_items(int64_t count, const F& f) {
  std::atomic<int64_t> next = 0;
  at::parallel_for(0, std::min<int64_t>(count, at::get_num_threads()), 1, [&](int64_t, int64_t) {
    Scratch scratch;
    for (int64_t item = next++; item < count; item = next++) f(item, scratch);
  });
}

template <class T>
Head<const T> head_at(const at::Tensor& x, int64_t column) {
  return {reinterpret_cast<const T*>(x.const_data_ptr()) + column, x.size(1)};
}
template <class T>
Head<T> head_at(at::Tensor& x, int64_t column) {
  return {reinterpret_cast<T*>(x.mutable_data_ptr()) + column, x.size(1)};
}

// Gradients of the rows that several sequences see: a slab [rows of parents, Hk, Dh'] twice for each chunk of
// sequences.
struct ParentSums {
  std::vector<int64_t> slot;  // of each packed row among the parents' rows, or -1
  std::vector<int64_t> rows;
  int64_t stride = 0;  // values of one row: Hk · Dh'
  at::Tensor k, v;     // [chunks, rows, Hk, Dh'] fp32

  ParentSums(const PackedAttention& a, int64_t chunks, const at::Tensor& like) {
    if (a.parent.empty()) return;
    slot.assign(static_cast<size_t>(a.offsets.back()), -1);
    for (const int64_t parent : a.parent) {
      if (parent < 0 || slot[static_cast<size_t>(a.offsets[static_cast<size_t>(parent)])] >= 0) continue;
      for (int64_t row = a.offsets[static_cast<size_t>(parent)]; row < a.offsets[static_cast<size_t>(parent) + 1];
           ++row) {
        slot[static_cast<size_t>(row)] = std::ssize(rows);
        rows.push_back(row);
      }
    }
    stride = a.num_kv_heads * padded(a.head_dim);
    const auto options = like.options().dtype(at::kFloat);
    k = at::zeros({chunks, std::ssize(rows), stride}, options);
    v = at::zeros({chunks, std::ssize(rows), stride}, options);
  }

  bool is_shared(int64_t row) const { return !slot.empty() && slot[static_cast<size_t>(row)] >= 0; }

  void add(at::Tensor& sums, int64_t chunk, int64_t row, int64_t kv_head, const float* from, int64_t width) const {
    float* to = sums.mutable_data_ptr<float>() + (chunk * std::ssize(rows) + slot[static_cast<size_t>(row)]) * stride +
                kv_head * width;
    for (int64_t d = 0; d < width; ++d) to[d] += from[d];
  }

  // Into the rows of grad [ΣT, Hk·Dh].
  void store(const at::Tensor& sums, const PackedAttention& a, at::Tensor& grad) const {
    if (rows.empty()) return;
    const auto total = sums.sum(0).view({std::ssize(rows), a.num_kv_heads, -1}).narrow(2, 0, a.head_dim).flatten(1);
    grad.index_copy_(0, at::tensor(rows, at::kLong), total.to(grad.scalar_type()));
  }
};

}  // namespace

bool has_packed_attention(const at::Tensor& q) {
  return q.device().is_cpu() && (q.scalar_type() == at::kFloat || q.scalar_type() == at::kBFloat16);
}

at::Tensor packed_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const PackedAttention& a,
                            at::Tensor& log_sum_exp) {
  POTSTILL_CHECK(q.is_contiguous() && k.is_contiguous() && v.is_contiguous());
  at::Tensor out = at::empty_like(q);
  log_sum_exp = at::empty({q.size(0), a.num_heads}, q.options().dtype(at::kFloat));
  const int64_t group = a.num_heads / a.num_kv_heads, num_sequences = std::ssize(a.offsets) - 1;
  std::vector<Seen> seen;
  for (int64_t s = 0; s < num_sequences; ++s) seen.push_back(seen_by(a, s));
  for_type(q, [&]<class T>(T) {
    for_items(num_sequences * a.num_kv_heads, [&](int64_t item, Scratch& scratch) {
      const Seen& rows = seen[static_cast<size_t>(item / a.num_kv_heads)];
      const int64_t kv_head = item % a.num_kv_heads, column = kv_head * a.head_dim;
      const Shape shape = shape_of(a, rows);
      scratch.take(shape.keys, a.head_dim);
      attend_head(shape, scratch, head_at<T>(q, column * group), head_at<T>(k, column), head_at<T>(v, column),
                  head_at<T>(out, column * group), log_sum_exp.mutable_data_ptr<float>() + kv_head * group,
                  rows.rows.data());
    });
  });
  return out;
}

AttentionGradients packed_attention_backward(const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k,
                                             const at::Tensor& v, const at::Tensor& out, const at::Tensor& log_sum_exp,
                                             const PackedAttention& a) {
  POTSTILL_CHECK(grad.is_contiguous() && grad.scalar_type() == q.scalar_type());
  AttentionGradients result{at::empty_like(q), at::empty_like(k), at::empty_like(v)};
  const int64_t group = a.num_heads / a.num_kv_heads, num_sequences = std::ssize(a.offsets) - 1;
  const int64_t chunks = a.parent.empty() ? num_sequences : std::min(num_sequences, kChunks);
  const int64_t width = padded(a.head_dim);
  ParentSums sums(a, chunks, q);
  std::vector<Seen> seen;
  for (int64_t s = 0; s < num_sequences; ++s) seen.push_back(seen_by(a, s));
  for_type(q, [&]<class T>(T) {
    for_items(chunks * a.num_kv_heads, [&](int64_t item, Scratch& scratch) {
      const int64_t chunk = item / a.num_kv_heads, kv_head = item % a.num_kv_heads, column = kv_head * a.head_dim;
      for (int64_t s = chunk; s < num_sequences; s += chunks) {
        const std::vector<int64_t>& rows = seen[static_cast<size_t>(s)].rows;
        const Shape shape = shape_of(a, seen[static_cast<size_t>(s)]);
        scratch.take(shape.keys, a.head_dim);
        attend_head_backward(shape, scratch, head_at<T>(grad, column * group), head_at<T>(q, column * group),
                             head_at<T>(k, column), head_at<T>(v, column), head_at<T>(out, column * group),
                             log_sum_exp.const_data_ptr<float>() + kv_head * group,
                             head_at<T>(result.q, column * group), rows.data());
        for (int64_t i = 0; i < shape.keys; ++i) {
          const int64_t row = rows[static_cast<size_t>(i)];
          if (sums.is_shared(row)) {
            sums.add(sums.k, chunk, row, kv_head, scratch.grad_k + i * width, width);
            sums.add(sums.v, chunk, row, kv_head, scratch.grad_v + i * width, width);
          } else {
            store_head(scratch.grad_k + i * width, width, head_at<T>(result.k, column), &row, 1, a.head_dim);
            store_head(scratch.grad_v + i * width, width, head_at<T>(result.v, column), &row, 1, a.head_dim);
          }
        }
      }
    });
  });
  sums.store(sums.k, a, result.k);
  sums.store(sums.v, a, result.v);
  return result;
}

}  // namespace potstill
