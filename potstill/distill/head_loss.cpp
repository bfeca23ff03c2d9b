#include "potstill/distill/head_loss.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "potstill/base/check.h"
#include "potstill/nn/matmul.h"

namespace potstill {

KlLossSums& KlLossSums::operator+=(const KlLossSums& other) {
  loss += other.loss;
  kl += other.kl;
  ce += other.ce;
  tokens += other.tokens;
  return *this;
}

at::Tensor head_logits(const at::Tensor& hidden, const at::Tensor& head) {
  return times_transposed(hidden.to(head.scalar_type()), head).to(at::kFloat);
}

CrossEntropyPart cross_entropy_part(const at::Tensor& logits, const at::Tensor& labels, double weight) {
  const auto column = labels.unsqueeze(1), label_logits = logits.gather(1, column);
  CrossEntropyPart part;
  part.log_sum = at::logsumexp(logits, 1, /*keepdim=*/true);
  part.sum = (part.log_sum - label_logits).sum(at::kDouble).item<double>();
  if (weight > 0) {
    part.gradient = at::exp(logits - part.log_sum);
    part.gradient.scatter_add_(1, column, at::full_like(label_logits, -1.0));
    part.gradient.mul_(weight);
  }
  return part;
}

KlLossSums fused_head_loss(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& labels,
                           int64_t vocab_limit, int64_t rows, const ChunkLoss& chunk_loss, at::Tensor* grad_hidden) {
  const at::NoGradGuard no_grad;
  POTSTILL_CHECK(vocab_limit > 0 && vocab_limit <= head.size(0));
  POTSTILL_CHECK(labels.size(0) == hidden.size(0) && rows > 0);
  const auto real_head = head.narrow(0, 0, vocab_limit);
  if (grad_hidden) *grad_hidden = at::empty_like(hidden);
  KlLossSums total;
  for (int64_t begin = 0; begin < hidden.size(0); begin += rows) {
    const int64_t count = std::min(rows, hidden.size(0) - begin);
    at::Tensor gradient;
    total += chunk_loss(head_logits(hidden.narrow(0, begin, count), real_head), begin, labels.narrow(0, begin, count),
                        grad_hidden ? &gradient : nullptr);
    if (grad_hidden) {
      grad_hidden->narrow(0, begin, count).copy_(times(gradient.to(head.scalar_type()), real_head));
    }
  }
  return total;
}

}  // namespace potstill
