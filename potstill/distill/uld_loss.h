// Universal logit distillation: a loss between distributions over different vocabularies.      arXiv:2402.12030
//
// Both are put into descending order and compared rank by rank, the shorter one padded with zeros: which token has
// which probability is not compared at all. Its values are no KL and must not be set beside one.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "potstill/distill/kl_loss.h"

namespace potstill {

// alpha · Σ_r |p_(r) - q_(r)| + (1 - alpha) · CE, summed over N positions: p = softmax(teacher / T), q =
// softmax(student / T), CE at T = 1. Not multiplied by T²: TRL's GOLD does not either.
//   teacher(begin, end): fp32 [end - begin, V of the teacher]; has_teacher [N] bool: positions without one have the
//   cross entropy alone
//   the others as in kl_loss(); sums.kl is the sum of the first term
KlLossSums uld_loss(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& labels,
                    const TeacherLogits& teacher, const at::Tensor& has_teacher, const KlLossOptions& options,
                    double grad_scale, at::Tensor* grad_hidden);

// Σ_r |p_(r) - q_(r)| of each row: fp32 logits [n, Vs], [n, Vt] -> [n] in double, at most 2.
at::Tensor uld_rows(const at::Tensor& student, const at::Tensor& teacher, double temperature);

}  // namespace potstill
