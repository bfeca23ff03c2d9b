// TensorView <-> at::Tensor: the only place that knows both.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <string>

#include "potstill/base/tensor_view.h"

namespace potstill {

// F64, F32, F16, BF16, I64, I32, I16, I8, U8, BOOL. Block formats have no scalar type: POTSTILL_CHECK.
at::ScalarType scalar_type_of(DType dtype);
DType dtype_of(at::ScalarType type);

// The same bytes as a CPU tensor. Borrowed: valid while `owner` (held by the tensor) or, without one, the caller keeps
// them; mapped files are read-only, so the tensor must not be written. Bytes that are not aligned are copied.
at::Tensor tensor_from_view(const TensorView& view, std::shared_ptr<const void> owner = nullptr);

// The tensor's bytes under a name, for the writers of formats/. It must be contiguous, on the CPU, and outlive the
// view.
TensorView view_of_tensor(std::string name, const at::Tensor& tensor);

}  // namespace potstill
