// The type of a tensor's values, for loops that are written once for fp32 and bf16.
#pragma once

#include <ATen/core/Tensor.h>

#include "potstill/nn/clones.h"

namespace potstill {

// f(T{}) with T float or Bf16Bits; x is fp32 or bf16.
template <class F>
void for_type(const at::Tensor& x, const F& f) {
  if (x.scalar_type() == at::kFloat) {
    f(float{});
  } else {
    f(Bf16Bits{});
  }
}

}  // namespace potstill
