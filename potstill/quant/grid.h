// Grids: which values a code of 4 (or 8) bits can stand for, chosen for each group of `group_size` inputs of a row.
//   value = scale · (code − zero),  code and zero in −2ᵇ⁻¹ … 2ᵇ⁻¹ − 1,  zero = 0 when symmetric      gptq.md section 5
// Scales are rounded to fp16, as every file stores them, before a weight is rounded to the grid: what follows sees, and
// GPTQ makes up for, that rounding too.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string_view>

namespace potstill {

enum class ClipRule {
  kNone,     // the largest magnitude on code 7: nothing is clipped
  kMse,      // least squared error over shrunk scales of both signs
  kHessian,  // the same, each column's error weighted by the diagonal of H: what the clipping costs in the output
};

enum class QuantOrder {
  kNone,        // columns as they lie, scales from the weights as updated so far
  kStatic,      // columns by falling diagonal of H, scales fixed before
  kGroupAware,  // whole groups by their largest diagonal, columns sorted inside: scales from updated weights
};

ClipRule parse_clip_rule(std::string_view word);      // "none", "mse", "hessian"
QuantOrder parse_quant_order(std::string_view word);  // "none", "static", "group-aware"

struct GridSpec {
  int64_t group_size = 64;
  bool symmetric = true;
  ClipRule clip = ClipRule::kHessian;
  int64_t bits = 4;  // or 8
};

// A weight [O, I] on its grid.
struct QuantizedWeight {
  at::Tensor codes;       // [O, I] int8, −8 … 7 (8 bits: −128 … 127)
  at::Tensor scales;      // [O, I / g] fp32, each a finite nonzero fp16 value
  at::Tensor zeros;       // [O, I / g] int8, in the codes' range
  bool symmetric = true;  // zeros are all 0, and no file stores them
  int64_t bits = 4;

  int64_t group_size() const { return codes.size(1) / scales.size(1); }
};

// scale · (code − zero) in fp32 [O, I]: exact, an fp16 times a number of at most 255.
at::Tensor dequantize(const QuantizedWeight& weight);

// Rows [begin, end) of a weight: layers quantized together (q, k, v) are taken apart with it.
QuantizedWeight slice_rows(const QuantizedWeight& weight, int64_t begin, int64_t end);

// The largest of 128, 64 and 32 that divides every width; 0 when none does.
int64_t largest_group_size(at::IntArrayRef widths);

// Throws Error(kUsage) with the sizes that fit when group_size does not divide `width`.
void require_group_divides(int64_t group_size, int64_t width, std::string_view tensor);

}  // namespace potstill
