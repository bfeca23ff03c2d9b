// QuantizedLinear: a linear in 4 bits, in no file's layout: what GPTQ gives and every writer takes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "potstill/base/dtype.h"

namespace potstill {

// value[o, i] = scales[o, i / g] · (codes[o, i] − zeros[o, i / g]); zero = 8 everywhere when symmetric.
struct QuantizedLinear {
  std::string name;  // module: "model.layers.0.self_attn.q_proj"
  int64_t out_features = 0, in_features = 0;
  int64_t group_size = 0;  // divides in_features; in_features itself = one scale a row ("channel")
  bool symmetric = true;
  std::vector<uint8_t> codes;  // [O, I], 0 … 15: one code a byte (q + 8 for a signed q in −8 … 7)
  std::vector<float> scales;   // [O, I / g]; fp16 values where they are to be stored without loss
  std::vector<uint8_t> zeros;  // [O, I / g], 0 … 15; empty when symmetric

  int64_t num_groups() const { return in_features / group_size; }  // of a row
};

// Error(kInput) when sizes do not fit each other or a code is over 15. `where` names the file or the step.
void check_quantized_linear(const QuantizedLinear& linear, std::string_view where);

// Rows [row_begin, row_begin + num_rows) as fp32 into out [num_rows, I].
void dequantize_rows(const QuantizedLinear& linear, int64_t row_begin, int64_t num_rows, std::span<float> out);

// Rows as ggml blocks, the codes untouched. Q4_0 takes symmetric linears alone and is exact; Q4_1 takes both, with
// d = scale and m = −scale · zero rounded to fp16. Error(kInput) when the group is no multiple of 32, and
// Error(kNumeric) when a scale is no fp16 value (it would change the weights).
void write_block_rows(const QuantizedLinear& linear, DType dtype, int64_t row_begin, int64_t num_rows,
                      std::span<std::byte> out);

}  // namespace potstill
