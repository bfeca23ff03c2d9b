// TensorView: the coin that every format trades in. It owns nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "potstill/base/dtype.h"

namespace potstill {

struct TensorView {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;        // row-major, last dimension contiguous
  std::span<const std::byte> bytes;  // tensor_bytes(dtype, shape) of them, borrowed
};

}  // namespace potstill
