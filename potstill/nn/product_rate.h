// How fast this machine multiplies matrices: what steps are measured against.
#pragma once

#include <ATen/ATen.h>

namespace potstill {

// Of a product as the forward pass has it ([512, 1024] x [1024, 1024]ᵀ), multiply and add counted as two, in a
// twentieth of a second.
double measured_flops_per_second(at::ScalarType dtype, at::Device device = at::kCPU);

}  // namespace potstill
