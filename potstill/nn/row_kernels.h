// The element-wise parts of a decoder layer on the CPU, each in one pass over memory. x, y and gradients are fp32 or
// bf16 (all of one dtype), contiguous; arithmetic is fp32 and rounds where transformers rounds.
#pragma once

#include <ATen/core/Tensor.h>

namespace potstill {

bool has_row_kernels(const at::Tensor& x);  // on the CPU, contiguous, fp32 or bf16

// x [T, D], weight [D] of x's dtype: y = weight · round(x · rstd); rstd [T] fp32 receives 1 / sqrt(mean(x²) + eps).
at::Tensor rms_norm_rows(const at::Tensor& x, const at::Tensor& weight, double eps, at::Tensor& rstd);
at::Tensor rms_norm_rows_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight,
                                  const at::Tensor& rstd);

// x [T, N · 2 · half]; cos, sin [positions, half] fp32, position [T] int64; sign -1 turns back.
at::Tensor rotate_rows(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, const at::Tensor& position,
                       float sign);

at::Tensor swiglu_rows(const at::Tensor& gate, const at::Tensor& up);  // silu(gate) · up
// logits [N, V] -> [N]: ln Σ exp of each row, NaN where it holds one, and its largest value.
void log_sum_exp_rows(const at::Tensor& logits, double* log_sum_exp, float* largest);

// Receives gate's and up's gradients in the memory of two new tensors.
void swiglu_rows_backward(const at::Tensor& grad, const at::Tensor& gate, const at::Tensor& up, at::Tensor& grad_gate,
                          at::Tensor& grad_up);

}  // namespace potstill
