// QuantizedCheckpoint: a WeightSource whose linears are 4-bit (some 8-bit) in the file, whatever the file's layout. A
// quantized linear appears as "<module>.weight" of DType::kQ4_0 (8 bits: kQ8_0) and is dequantized by read_rows; the
// other weights are plain.
#pragma once

#include <cstdint>
#include <string_view>

#include "potstill/formats/quantized_linear.h"
#include "potstill/formats/weight_source.h"

namespace potstill {

class QuantizedCheckpoint : public WeightSource {
 public:
  virtual bool is_quantized(std::string_view name) const = 0;      // "<module>.weight"
  virtual bool symmetric() const = 0;                              // no linear has zero points
  virtual int64_t group_size() const = 0;                          // 0 = one scale a row
  virtual int64_t bits(std::string_view name) const = 0;           // of a quantized linear's codes: 4 or 8
  virtual uint64_t stored_bytes(std::string_view name) const = 0;  // of a weight with its scales and zeros
  // Codes and scales as they lie. Throws Error(kInput) for a name that is not quantized, or a linear whose groups are
  // not contiguous (activation order without static groups): such a one can only be dequantized.
  virtual QuantizedLinear linear(std::string_view name) const = 0;  // "<module>.weight"
};

}  // namespace potstill
