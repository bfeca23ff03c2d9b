// Log-probabilities of given tokens through the LM head, a chunk of positions at a time: no [T, V] is ever alive.
#pragma once

#include <ATen/ATen.h>

#include <functional>

namespace potstill {

struct TokenLogProbs {
  at::Tensor log_prob;   // [N] double: log softmax(logits)[target], in nats
  at::Tensor is_argmax;  // [N] bool: no token was more likely (of equals the lowest id counts)
};

// The probability of targets[i] after the token whose hidden state is hidden[rows[i]]; rows may repeat, and each passes
// the head once. hidden [H, D] after the final norm; rows, targets [N] int64; head: [M, D] -> logits [M, V]
// of any dtype. The results are on the CPU.
TokenLogProbs token_log_probs(const at::Tensor& hidden, const at::Tensor& rows, const at::Tensor& targets,
                              const std::function<at::Tensor(const at::Tensor&)>& head);
// Of each row one, with the head's weight [V, D].
TokenLogProbs token_log_probs(const at::Tensor& hidden, const at::Tensor& targets, const at::Tensor& lm_head);

}  // namespace potstill
