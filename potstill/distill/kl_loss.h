// The distillation loss, fused with both LM heads: nothing of size [tokens, vocabulary] is ever alive.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <string_view>

namespace potstill {

// What is made small between the teacher's distribution p and the student's q, at temperature T.
enum class Divergence {
  kForwardKl,  // KL(p || q): q covers all that p does
  kReverseKl,  // KL(q || p): q keeps to what p likes
  kJsd,        // beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q        GKD, arXiv:2306.13649
};
Divergence parse_divergence(std::string_view name);  // "forward-kl", "reverse-kl", "jsd"

struct KlLossOptions {
  Divergence divergence = Divergence::kForwardKl;
  double jsd_beta = 0.5;
  double alpha = 1.0;
  double temperature = 2.0;
  int64_t vocab_limit = 0;  // real tokens; rows of the heads past them pad and do not count
  int64_t rows = 128;       // positions whose logits are alive at a time
};

// Sums over positions; see kl_loss_ref.h for the terms.
struct KlLossSums {
  double loss = 0, kl = 0, ce = 0;  // kl: of the divergence chosen
  int64_t tokens = 0;

  KlLossSums& operator+=(const KlLossSums& other);
};

// Teacher logits of positions [begin, end): fp32 [end - begin, vocab_limit], whose memory the loss may overwrite.
using TeacherLogits = std::function<at::Tensor(int64_t begin, int64_t end)>;

// The loss over N answer positions, α·T²·divergence + (1 - α)·CE summed, and its gradient.
//   hidden [N, D]: the student's states after the final norm; head [≥ vocab_limit, D], frozen; labels [N] int64
//   grad_hidden [N, D], hidden's dtype: receives grad_scale · dloss/dhidden; pass nullptr for the value alone
// grad_scale is 1 / (answer tokens of the whole optimizer step), so the gradient does not depend on how a step is cut.
KlLossSums kl_loss(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& labels,
                   const TeacherLogits& teacher, const KlLossOptions& options, double grad_scale,
                   at::Tensor* grad_hidden);

// hidden [n, D] × head [V, D] -> fp32 [n, V]. Sums are in fp32 whatever the dtype of the operands.
at::Tensor head_logits(const at::Tensor& hidden, const at::Tensor& head);

}  // namespace potstill
