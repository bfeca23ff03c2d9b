// QuantizedLinear: a linear in 4 or 8 bits, in no file's layout: what GPTQ gives and every writer takes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "potstill/base/dtype.h"

namespace potstill {

// value[o, i] = scales[o, i / g] · (codes[o, i] − zeros[o, i / g]); zero = 2ᵇ⁻¹ everywhere when symmetric (8, or 128).
struct QuantizedLinear {
  std::string name;  // module: "model.layers.0.self_attn.q_proj"
  int64_t out_features = 0, in_features = 0;
  int64_t group_size = 0;  // divides in_features; in_features itself = one scale a row ("channel")
  bool symmetric = true;
  std::vector<uint8_t> codes;  // [O, I], 0 … 15 or 255: one code a byte (q + 2ᵇ⁻¹ for a signed q)
  std::vector<float> scales;   // [O, I / g]; fp16 values where they are to be stored without loss
  std::vector<uint8_t> zeros;  // [O, I / g], as codes; empty when symmetric
  int64_t bits = 4;            // or 8

  int64_t num_groups() const { return in_features / group_size; }  // of a row
  int symmetric_zero() const { return 1 << (bits - 1); }
};

// Error(kInput) when sizes do not fit each other or a 4-bit code is over 15. `where` names the file or the step.
void check_quantized_linear(const QuantizedLinear& linear, std::string_view where);

// Error(kFormat) for a scale that is NaN or infinite: a damaged file, found before its weights are used.
void require_finite_scales(std::span<const float> scales, std::string_view tensor, std::string_view where);

// Rows [row_begin, row_begin + num_rows) as fp32 into out [num_rows, I].
void dequantize_rows(const QuantizedLinear& linear, int64_t row_begin, int64_t num_rows, std::span<float> out);

// Rows as ggml blocks, the codes untouched. Q4_0 takes symmetric 4-bit linears alone, Q8_0 symmetric 8-bit ones, both
// exact; Q4_1 takes any 4-bit one, with d = scale and m = −scale · zero rounded to fp16. Error(kInput) when the block
// cannot hold it or the group is no multiple of 32, Error(kNumeric) when a scale is no fp16 value (it would change the
// weights).
DType block_dtype(const QuantizedLinear& linear);  // Q4_0, Q4_1 or Q8_0: what holds it best
void write_block_rows(const QuantizedLinear& linear, DType dtype, int64_t row_begin, int64_t num_rows,
                      std::span<std::byte> out);

}  // namespace potstill
