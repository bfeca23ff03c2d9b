// Rotary position embedding on heads, differentiable.
#pragma once

#include "potstill/nn/decoder_layer.h"

namespace potstill {

// x [ΣT, N·Dh] as N heads a token -> the same shape, rotated: (a, b) -> (a·cos - b·sin, b·cos + a·sin) for the two
// halves of each head ("rotate half", as Hugging Face stores q and k). Saves nothing of x for the gradient.
at::Tensor apply_rotary(const at::Tensor& x, const at::Tensor& positions, const RotaryTable& rotary);

}  // namespace potstill
