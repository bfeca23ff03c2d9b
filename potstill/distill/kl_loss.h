// The distillation loss, fused with both LM heads: nothing of size [tokens, vocabulary] is ever alive.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <string_view>

#include "potstill/distill/head_loss.h"

namespace potstill {

// What is made small between the teacher's distribution p and the student's q, at temperature T.
enum class Divergence {
  kForwardKl,  // KL(p || q): q covers all that p does
  kReverseKl,  // KL(q || p): q keeps to what p likes
  kJsd,        // beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q        GKD, arXiv:2306.13649
  kUld,        // no KL: uld_loss.h
};
Divergence parse_divergence(std::string_view name);  // "forward-kl", "reverse-kl", "jsd", "uld"

struct KlLossOptions {
  Divergence divergence = Divergence::kForwardKl;
  double jsd_beta = 0.5;
  double alpha = 1.0;
  double temperature = 2.0;
  int64_t vocab_limit = 0;  // real tokens; rows of the heads past them pad and do not count
  int64_t rows = 128;       // positions whose logits are alive at a time
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

}  // namespace potstill
