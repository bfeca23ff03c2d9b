// Log-probabilities of given tokens through the LM head, a chunk of positions at a time: no [T, V] is ever alive.
#pragma once

#include <ATen/ATen.h>

#include <functional>

namespace potstill {

struct TokenLogProbs {
  at::Tensor log_prob;   // [N] double: log softmax(logits)[target], in nats
  at::Tensor is_argmax;  // [N] bool: no token was more likely (of equals the lowest id counts)
};

// hidden [N, D] after the final norm, targets [N] int64; head: [M, D] -> fp32 logits [M, V]. On the CPU.
TokenLogProbs token_log_probs(const at::Tensor& hidden, const at::Tensor& targets,
                              const std::function<at::Tensor(const at::Tensor&)>& head);
// With the head's weight [V, D].
TokenLogProbs token_log_probs(const at::Tensor& hidden, const at::Tensor& targets, const at::Tensor& lm_head);

}  // namespace potstill
