// X Xᵀ of a batch, the upper triangle of it.
#pragma once

#include <ATen/core/Tensor.h>

namespace potstill::quant {

// Adds Σ_t x[t, i] · x[t, j] to sum[i, j] for i <= j; entries below the diagonal are left undefined. Products are
// summed in fp32 over a few thousand tokens, and these sums in double. Whatever the number of threads, the result is
// the same.
//   x [T, I] any float dtype;  sum [I, I] double, contiguous, on x's device
void add_gram(const at::Tensor& x, const at::Tensor& sum);

}  // namespace potstill::quant
