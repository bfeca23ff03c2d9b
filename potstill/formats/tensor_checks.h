// What a reader asks of a stored tensor before it touches its bytes.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <initializer_list>
#include <string_view>

#include "potstill/base/error.h"
#include "potstill/base/tensor_view.h"

namespace potstill {

// Throws Error(kFormat) with both shapes.
inline void require_shape(const TensorView& tensor, std::initializer_list<int64_t> shape, std::string_view where) {
  if (std::ranges::equal(tensor.shape, shape)) return;
  throw Error(ErrorKind::kFormat, where,
              fmt::format("tensor '{}' is [{}] but the layer's shape and group size make it [{}]", tensor.name,
                          fmt::join(tensor.shape, ", "), fmt::join(shape, ", ")));
}

// Throws Error(kFormat) with both types.
inline void require_dtype(const TensorView& tensor, DType dtype, std::string_view where) {
  if (tensor.dtype == dtype) return;
  throw Error(ErrorKind::kFormat, where,
              fmt::format("tensor '{}' is {}, not {}", tensor.name, dtype_name(tensor.dtype), dtype_name(dtype)));
}

}  // namespace potstill
