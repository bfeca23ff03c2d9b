// Newton–Schulz: an approximate orthogonalisation U·Vᵀ of a matrix U·S·Vᵀ out of matrix products alone.
#pragma once

#include <ATen/ATen.h>

namespace potstill {

// The quintic of Keller Jordan's Muon. Each step maps every singular value s to a·s + b·s³ + c·s⁵; five steps bring
// [0.01, 1] into [0.68, 1.14]. It does not converge to 1, and 0 stays 0.
struct NewtonSchulzOptions {
  double a = 3.4445, b = -4.7750, c = 2.0315;
  int64_t steps = 5;
  double eps = 1e-12;  // least Frobenius norm that is divided by; the published 1e-7 would damp LoRA's small gradients
};

// g [n, rows, cols] fp32 -> the same shape: every matrix of the batch is divided by its Frobenius norm and iterated.
// Zero gives zero. Thin matrices (the long side at least twice the short one) take the Gram form. gram: of the result,
// [n, s, s] fp64 over the short side, which the Gram form has at hand.
at::Tensor newton_schulz(const at::Tensor& g, const NewtonSchulzOptions& options = {}, at::Tensor* gram = nullptr);

// The iteration as published, X <- aX + (bA + cA²)X with A = XXᵀ, in fp32.
at::Tensor newton_schulz_direct(const at::Tensor& g, const NewtonSchulzOptions& options = {});

// The same polynomial, gathered: X_t = P_t X_0 where P_t is a polynomial in the r×r Gram matrix of X_0, so the long
// side is touched twice instead of 2·steps times. The r×r part is in fp64, because the Gram matrix squares the
// condition number.
at::Tensor newton_schulz_gram(const at::Tensor& g, const NewtonSchulzOptions& options = {}, at::Tensor* gram = nullptr);

// ||O Oᵀ - I||_F / sqrt(short side) of each matrix of a batch, by its newton_schulz()'s gram, added to a mean that
// leaves zero matrices out.
class OrthogonalityError {
 public:
  void add(const at::Tensor& gram);
  double mean() const { return count_ == 0 ? 0 : sum_ / static_cast<double>(count_); }

 private:
  double sum_ = 0;
  int64_t count_ = 0;
};

}  // namespace potstill
