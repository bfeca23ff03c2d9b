// Causal grouped-query attention inside the sequences of a packed batch, and its gradient, as one pass over each
// sequence and kv head: for many short sequences, where a product at a time is all overhead. CPU, fp32 or bf16.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace potstill {

struct PackedAttention {
  int64_t num_heads, num_kv_heads, head_dim;
  int64_t sliding_window;        // 0 = none; otherwise a token sees itself and the window - 1 tokens before it
  std::vector<int64_t> offsets;  // PackedBatch's
  std::vector<int64_t> parent;   // PackedBatch's: a sequence sees all rows of its parent, and of that one's parents
};

bool has_packed_attention(const at::Tensor& q);

// q [ΣT, H·Dh], k and v [ΣT, Hk·Dh], contiguous -> [ΣT, H·Dh]; log_sum_exp [ΣT, H] fp32 of the scaled scores.
at::Tensor packed_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const PackedAttention& attention, at::Tensor& log_sum_exp);

struct AttentionGradients {
  at::Tensor q, k, v;
};
// grad, out: of packed_attention's result. What a parent's rows get from all its children is added in one order,
// whatever the number of threads.
AttentionGradients packed_attention_backward(const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k,
                                             const at::Tensor& v, const at::Tensor& out, const at::Tensor& log_sum_exp,
                                             const PackedAttention& attention);

}  // namespace potstill
