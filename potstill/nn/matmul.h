// Products of activations with frozen weights, by the faster of LibTorch's two libraries.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace potstill {

// x [T, I] · wᵀ (+ bias), w [O, I] -> [T, O], and x [T, O] · w -> [T, I], in x's dtype, which is also w's. Without a
// gradient of their own: for inference and inside written gradients.
at::Tensor times_transposed(const at::Tensor& x, const at::Tensor& w, const std::optional<at::Tensor>& bias = {});
at::Tensor times(const at::Tensor& x, const at::Tensor& w);

}  // namespace potstill
