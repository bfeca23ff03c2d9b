// ActivationBuffer: the rows of a step in the form that products read them.
#pragma once

#include <cstdint>
#include <memory>

#include "potstill/kernels/kernels.h"

namespace potstill::edge {

// Bytes that come aligned to a cache line; contents are lost when it grows.
class AlignedBytes {
 public:
  std::byte* reserve(size_t bytes);
  template <class T>
  T* reserve_for(size_t count) {
    return reinterpret_cast<T*>(reserve(count * sizeof(T)));
  }

 private:
  struct Free {
    void operator()(std::byte* p) const;
  };
  std::unique_ptr<std::byte, Free> data_;
  size_t size_ = 0;
};

class ActivationBuffer {
 public:
  // x [num_rows, cols]. Nothing is computed yet.
  void reset(const float* x, int64_t cols, int64_t num_rows, kernels::CodeWidth width);
  // Columns [begin, end) of a row, out of x; begin and end are multiples of 32 or the row's end. May run beside others.
  void quantize(const kernels::KernelTable& table, int64_t row, int64_t begin, int64_t end);
  void quantize_row(const kernels::KernelTable& table, int64_t row) { quantize(table, row, 0, planes_.cols); }

  const kernels::Activations& planes() const { return planes_; }

 private:
  kernels::Activations planes_;
  AlignedBytes high_bytes_, low_bytes_, scale_bytes_, sum_bytes_, offset_bytes_;
  // planes_ without const
  int8_t *high_ = nullptr, *low_ = nullptr;
  float *scales_ = nullptr, *block_sums_ = nullptr;
  int32_t* offsets_ = nullptr;
};

}  // namespace potstill::edge
