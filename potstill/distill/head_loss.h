// The loop that all losses share: logits through the LM head, chunk by chunk, and back into the hidden states, so that
// nothing of size [tokens, vocabulary] is ever alive.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>

namespace potstill {

// Sums over positions; see kl_loss_ref.h for the terms.
struct KlLossSums {
  double loss = 0, kl = 0, ce = 0;  // kl: of the divergence chosen
  int64_t tokens = 0;

  KlLossSums& operator+=(const KlLossSums& other);
};

// The loss of positions [begin, begin + n): logits fp32 [n, vocab_limit], whose memory may be overwritten. With a
// gradient, sets *gradient to grad_scale · dloss/dlogits in any float dtype.
using ChunkLoss =
    std::function<KlLossSums(at::Tensor logits, int64_t begin, const at::Tensor& labels, at::Tensor* gradient)>;

// hidden [N, D], head [≥ vocab_limit, D], labels [N] int64 -> the sums; grad_hidden [N, D] or nullptr. `rows`:
// positions whose logits are alive at a time.
KlLossSums fused_head_loss(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& labels,
                           int64_t vocab_limit, int64_t rows, const ChunkLoss& chunk_loss, at::Tensor* grad_hidden);

// Sum over rows of -log softmax(logits)[label], and with weight > 0 its slope times weight: [n, V], else undefined.
struct CrossEntropyPart {
  double sum = 0;
  at::Tensor log_sum;   // [n, 1] logsumexp of the logits
  at::Tensor gradient;  // [n, V] or undefined
};
CrossEntropyPart cross_entropy_part(const at::Tensor& logits, const at::Tensor& labels, double weight);

// hidden [n, D] × head [V, D] -> fp32 [n, V]. Sums are in fp32 whatever the dtype of the operands.
at::Tensor head_logits(const at::Tensor& hidden, const at::Tensor& head);

}  // namespace potstill
