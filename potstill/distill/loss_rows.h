// The KL + CE loss of rows of logits, in two passes over memory: what the ATen formulation needs a dozen for.
#pragma once

#include <ATen/core/Tensor.h>

namespace potstill {

struct LossRowSums {
  double kl = 0, ce = 0;
};

// student, teacher: fp32 [n, V] on the CPU, contiguous rows, both used up; labels [n] int64.
// gradient: undefined for the value alone, or [n, V] fp32 or bf16: receives grad_scale times the gradient of
// alpha · T² · KL + (1 - alpha) · CE. Sums are taken in double over blocks of 512; they do not depend on the threads.
LossRowSums kl_loss_rows(const at::Tensor& student, const at::Tensor& teacher, const at::Tensor& labels, double alpha,
                         double temperature, double grad_scale, at::Tensor gradient);

}  // namespace potstill
