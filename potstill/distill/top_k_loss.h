// The loss against a teacher of whom only the k likeliest tokens of each position are known, and what mass they leave.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "potstill/distill/kl_loss.h"

namespace potstill {

// n positions. Rows with fewer than k tokens repeat their first id, at log-probability -inf.
struct TopKRows {
  at::Tensor ids;        // [n, k] int64, the likeliest first
  at::Tensor log_probs;  // [n, k] fp32, at T = 1
};

// Of the k tokens' mass c and the rest's r = 1 - c everything is known but how r is spread, so
//   L = T² c KL(p_T || q_T, both within the k tokens) + c log(c / C) + r log(r / R),
// C and R the student's own masses at T = 1. At T = 1 it is the KL over k + 1 classes, a lower bound of the KL; at any
// T only what is known enters: no shape of the tail is assumed, and nothing is renormalised away (which would teach
// over-confidence: arXiv:2503.16870). alpha · L + (1 - alpha) · CE; sums.kl is the sum of L without the T².
KlLossSums top_k_loss(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& labels,
                      const TopKRows& teacher, const KlLossOptions& options, double grad_scale,
                      at::Tensor* grad_hidden);

// L of each row at temperature T from fp32 student logits [n, V]: [n] in double.
at::Tensor top_k_rows(const at::Tensor& student, const TopKRows& teacher, double temperature);

}  // namespace potstill
