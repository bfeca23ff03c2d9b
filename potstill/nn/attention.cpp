#include "potstill/nn/attention.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include <algorithm>
#include <atomic>
#include <cmath>

#include "potstill/nn/packed_attention.h"

namespace potstill {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct HeadShape {
  int64_t num_heads, num_kv_heads, head_dim, sliding_window;

  int64_t group() const { return num_heads / num_kv_heads; }
  double scale() const { return 1.0 / std::sqrt(static_cast<double>(head_dim)); }
};

// Rows of one sequence as [Hk, G, T, Dh]: kv heads lie in the batch dimension, so that a group's k and v are one tensor
// with stride 0 over its heads.
at::Tensor query_heads(const at::Tensor& rows, const HeadShape& shape) {
  return rows.unflatten(1, {shape.num_kv_heads, shape.group(), shape.head_dim}).permute({1, 2, 0, 3});
}

at::Tensor key_heads(const at::Tensor& rows, const HeadShape& shape) {
  return rows.unflatten(1, {shape.num_kv_heads, 1, shape.head_dim})
      .permute({1, 2, 0, 3})
      .expand({-1, shape.group(), -1, -1});
}

// Mistral's window: a token sees itself and the window - 1 tokens before it. Nothing while the sequence fits.
std::optional<at::Tensor> window_mask(int64_t num_tokens, const HeadShape& shape, const at::Tensor& like) {
  if (shape.sliding_window <= 0 || num_tokens <= shape.sliding_window) return std::nullopt;
  const auto options = like.options();
  const auto position = at::arange(num_tokens, options.dtype(at::kLong));
  const auto distance = position.unsqueeze(1) - position.unsqueeze(0);
  const auto hidden = distance.lt(0).logical_or_(distance.ge(shape.sliding_window));
  return at::zeros({num_tokens, num_tokens}, options).masked_fill_(hidden, -INFINITY);
}

// A continuation of `parent_tokens` rows: every key of the parent, and its own up to each token. [T, parent + T]
at::Tensor continuation_mask(int64_t num_tokens, int64_t parent_tokens, const HeadShape& shape,
                             const at::Tensor& like) {
  const auto options = like.options();
  const auto query = at::arange(parent_tokens, parent_tokens + num_tokens, options.dtype(at::kLong)).unsqueeze(1);
  const auto key = at::arange(parent_tokens + num_tokens, options.dtype(at::kLong)).unsqueeze(0);
  auto hidden = key.gt(query);
  if (shape.sliding_window > 0) hidden.logical_or_((query - key).ge(shape.sliding_window));
  return at::zeros(hidden.sizes(), options).masked_fill_(hidden, -INFINITY);
}

// f(first row, end) for every sequence. Many short ones are shared out, each to one thread, the longest first: the work
// inside one is too small to be cut. Few are cut inside.
template <class F>
void for_sequences(const std::vector<int64_t>& offsets, const F& f) {
  std::vector<std::pair<int64_t, int64_t>> sequences;
  for (size_t b = 0; b + 1 < offsets.size(); ++b) {
    if (offsets[b] < offsets[b + 1]) sequences.emplace_back(offsets[b], offsets[b + 1]);
  }
  const int threads = at::get_num_threads();
  if (threads == 1 || std::ssize(sequences) < 2 * threads) {
    for (const auto& [begin, end] : sequences) f(begin, end);
    return;
  }
  std::ranges::stable_sort(sequences, std::ranges::greater(), [](const auto& s) { return s.second - s.first; });
  std::atomic<size_t> next = 0;
  at::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    const at::NoGradGuard no_grad;  // a thread's own setting
    for (size_t i = next++; i < sequences.size(); i = next++) f(sequences[i].first, sequences[i].second);
  });
}

// Without a gradient, by LibTorch's kernel: its tiles suit long sequences.
at::Tensor flash_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const PackedBatch& batch,
                           const HeadShape& shape) {
  at::Tensor out = at::empty_like(q);
  for_sequences(batch.offsets, [&](int64_t begin, int64_t end) {
    const auto mask = window_mask(end - begin, shape, q);
    const auto sequence_out = std::get<0>(at::_scaled_dot_product_flash_attention_for_cpu(
        query_heads(q.slice(0, begin, end), shape), key_heads(k.slice(0, begin, end), shape),
        key_heads(v.slice(0, begin, end), shape), 0.0, !mask, mask, shape.scale()));
    query_heads(out.slice(0, begin, end), shape).copy_(sequence_out);
  });
  return out;
}

struct PackedCall : torch::CustomClassHolder {
  PackedAttention attention;
};

struct CpuAttention : torch::autograd::Function<CpuAttention> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const c10::intrusive_ptr<PackedCall>& call) {
    at::Tensor log_sum_exp;
    const auto out = packed_attention(q, k, v, call->attention, log_sum_exp);
    context->save_for_backward({q, k, v, out, log_sum_exp});
    context->saved_data["call"] = c10::IValue::make_capsule(call);
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto call = c10::static_intrusive_pointer_cast<PackedCall>(context->saved_data["call"].toCapsule());
    const auto gradients = packed_attention_backward(grads[0].contiguous(), saved[0], saved[1], saved[2], saved[3],
                                                     saved[4], call->attention);
    return {gradients.q, gradients.k, gradients.v, {}};
  }
};

PackedAttention packed_call(const PackedBatch& batch, const HeadShape& shape) {
  return {shape.num_heads, shape.num_kv_heads, shape.head_dim, shape.sliding_window, batch.offsets, batch.parent};
}

at::Tensor trained_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const PackedBatch& batch,
                             const HeadShape& shape) {
  auto call = c10::make_intrusive<PackedCall>();
  call->attention = packed_call(batch, shape);
  return CpuAttention::apply(q.contiguous(), k.contiguous(), v.contiguous(), call);
}

// Any device: the dispatcher's own kernels and gradients.
at::Tensor device_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const PackedBatch& batch,
                            const HeadShape& shape) {
  std::vector<at::Tensor> outputs;
  for (int64_t b = 0; b < batch.num_sequences(); ++b) {
    const auto heads = [&](const at::Tensor& x) {  // [1, heads, T, Dh]
      return x.slice(0, batch.offsets[b], batch.offsets[b + 1])
          .unflatten(1, {-1, shape.head_dim})
          .transpose(0, 1)
          .unsqueeze(0);
    };
    const auto mask = window_mask(batch.offsets[b + 1] - batch.offsets[b], shape, q);
    const auto out = at::scaled_dot_product_attention(heads(q), heads(k), heads(v), mask, 0.0, /*is_causal=*/!mask,
                                                      shape.scale(), /*enable_gqa=*/shape.group() > 1);
    outputs.push_back(out.squeeze(0).transpose(0, 1).flatten(1));
  }
  return at::cat(outputs);
}

// Batches with parents. A parent's own parents are seen too: examples, question, answer.
at::Tensor attention_with_parents(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                  const PackedBatch& batch, const HeadShape& shape) {
  at::Tensor out = at::empty_like(q);
  for (int64_t b = 0; b < batch.num_sequences(); ++b) {
    const int64_t begin = batch.offsets[b], end = batch.offsets[b + 1];
    if (begin == end) continue;
    std::vector<int64_t> seen{b};  // the sequence and what it continues, front to back
    for (int64_t parent = batch.parent[b]; parent >= 0; parent = batch.parent[parent]) {
      seen.insert(seen.begin(), parent);
    }
    const auto rows = [&](const at::Tensor& x) {
      std::vector<at::Tensor> parts;
      for (const int64_t s : seen) parts.push_back(x.slice(0, batch.offsets[s], batch.offsets[s + 1]));
      return parts.size() == 1 ? parts.front() : at::cat(parts);
    };
    const auto seen_k = rows(k), seen_v = rows(v);
    const auto mask = continuation_mask(end - begin, seen_k.size(0) - (end - begin), shape, q);
    query_heads(out.slice(0, begin, end), shape)
        .copy_(at::scaled_dot_product_attention(query_heads(q.slice(0, begin, end), shape), key_heads(seen_k, shape),
                                                key_heads(seen_v, shape), mask, 0.0,
                                                /*is_causal=*/false, shape.scale()));
  }
  return out;
}

// Up to here a head's scores of all keys stay in the L2, and one pass over whole rows is faster than tiles (two Zen 4
// cores, heads of 64: at 512 tokens 115 GFLOP/s beside the tiles' 68, at 1,024 64 beside 99).
constexpr int64_t kLongestPacked = 640;

// Keys that a sequence sees at most: its own rows and its parents'.
int64_t most_keys(const PackedBatch& batch) {
  int64_t most = 0;
  for (int64_t b = 0; b < batch.num_sequences(); ++b) {
    int64_t keys = batch.offsets[b + 1] - batch.offsets[b];
    for (int64_t p = batch.parent.empty() ? -1 : batch.parent[b]; p >= 0; p = batch.parent[p]) {
      keys += batch.offsets[p + 1] - batch.offsets[p];
    }
    most = std::max(most, keys);
  }
  return most;
}

}  // namespace

at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const PackedBatch& batch,
                            const ModelConfig& config) {
  const HeadShape shape{config.num_attention_heads, config.num_key_value_heads, config.head_dim, config.sliding_window};
  // By the mode, not by what asks for a gradient: a layer that is computed again must take the same kernel.
  const bool trains = at::GradMode::is_enabled();
  if (trains && has_packed_attention(q)) return trained_attention(q, k, v, batch, shape);
  if (!trains && has_packed_attention(q) && most_keys(batch) <= kLongestPacked) {
    at::Tensor log_sum_exp;
    return packed_attention(q.contiguous(), k.contiguous(), v.contiguous(), packed_call(batch, shape), log_sum_exp);
  }
  if (!batch.parent.empty()) return attention_with_parents(q.contiguous(), k, v, batch, shape);
  if (trains || !q.device().is_cpu()) return device_attention(q, k, v, batch, shape);
  return flash_attention(q.contiguous(), k.contiguous(), v.contiguous(), batch, shape);
}

at::Tensor continued_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const ModelConfig& config) {
  const HeadShape shape{config.num_attention_heads, config.num_key_value_heads, config.head_dim, config.sliding_window};
  const auto keys = [&](const at::Tensor& x) { return x.unsqueeze(1).expand({-1, shape.group(), -1, -1}); };
  const auto mask = continuation_mask(q.size(0), k.size(1) - q.size(0), shape, q);
  const auto out = at::scaled_dot_product_attention(query_heads(q, shape), keys(k), keys(v), mask, 0.0,
                                                    /*is_causal=*/false, shape.scale());
  return out.permute({2, 0, 1, 3}).flatten(1);
}

}  // namespace potstill
