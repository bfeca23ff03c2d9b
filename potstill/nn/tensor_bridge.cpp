#include "potstill/nn/tensor_bridge.h"

#include <cstring>

#include "potstill/base/check.h"

namespace potstill {

at::ScalarType scalar_type_of(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return at::kDouble;
    case DType::kF32:
      return at::kFloat;
    case DType::kF16:
      return at::kHalf;
    case DType::kBF16:
      return at::kBFloat16;
    case DType::kI64:
      return at::kLong;
    case DType::kI32:
      return at::kInt;
    case DType::kI16:
      return at::kShort;
    case DType::kI8:
      return at::kChar;
    case DType::kU8:
      return at::kByte;
    case DType::kBool:
      return at::kBool;
    case DType::kQ4_0:
    case DType::kQ4_1:
    case DType::kQ8_0:
      break;
  }
  POTSTILL_CHECK(!is_block_quantized(dtype));
  return at::kFloat;
}

DType dtype_of(at::ScalarType type) {
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kF16, DType::kBF16, DType::kI64, DType::kI32, DType::kI16,
                            DType::kI8, DType::kU8, DType::kBool}) {
    if (scalar_type_of(dtype) == type) return dtype;
  }
  POTSTILL_CHECK(!"a scalar type that no file format stores");
  return DType::kF32;
}

at::Tensor tensor_from_view(const TensorView& view, std::shared_ptr<const void> owner) {
  const at::ScalarType type = scalar_type_of(view.dtype);
  POTSTILL_CHECK(tensor_bytes(view.dtype, view.shape) == view.bytes.size());
  const bool aligned =
      reinterpret_cast<uintptr_t>(view.bytes.data()) % static_cast<uintptr_t>(c10::elementSize(type)) == 0;
  if (!aligned) {
    at::Tensor copy = at::empty(view.shape, type);
    std::memcpy(copy.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
    return copy;
  }
  auto* data = const_cast<std::byte*>(view.bytes.data());  // from_blob has no read-only form
  return at::from_blob(
      data, view.shape, [owner = std::move(owner)](void*) {}, type);
}

TensorView view_of_tensor(std::string name, const at::Tensor& tensor) {
  POTSTILL_CHECK(tensor.is_contiguous() && tensor.device().is_cpu());
  return {.name = std::move(name),
          .dtype = dtype_of(tensor.scalar_type()),
          .shape = tensor.sizes().vec(),
          .bytes = {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()}};
}

}  // namespace potstill
