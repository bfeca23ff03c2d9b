#include "potstill/quant/grid.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <vector>

#include "potstill/base/check.h"
#include "potstill/base/error.h"

namespace potstill {

ClipRule parse_clip_rule(std::string_view word) {
  if (word == "none") return ClipRule::kNone;
  if (word == "mse") return ClipRule::kMse;
  if (word == "hessian") return ClipRule::kHessian;
  throw Error(ErrorKind::kUsage, "quantize", fmt::format("clip is '{}'", word), "one of: none, mse, hessian");
}

QuantOrder parse_quant_order(std::string_view word) {
  if (word == "none") return QuantOrder::kNone;
  if (word == "static") return QuantOrder::kStatic;
  if (word == "group-aware") return QuantOrder::kGroupAware;
  throw Error(ErrorKind::kUsage, "quantize", fmt::format("order is '{}'", word), "one of: none, static, group-aware");
}

at::Tensor dequantize(const QuantizedWeight& weight) {
  const int64_t O = weight.codes.size(0), I = weight.codes.size(1), groups = weight.scales.size(1);
  const auto steps =
      weight.codes.to(at::kFloat).view({O, groups, I / groups}) - weight.zeros.to(at::kFloat).unsqueeze(2);
  return (steps * weight.scales.unsqueeze(2)).view({O, I});
}

QuantizedWeight slice_rows(const QuantizedWeight& weight, int64_t begin, int64_t end) {
  return {weight.codes.slice(0, begin, end).contiguous(), weight.scales.slice(0, begin, end).contiguous(),
          weight.zeros.slice(0, begin, end).contiguous(), weight.symmetric, weight.bits};
}

int64_t largest_group_size(at::IntArrayRef widths) {
  for (const int64_t size : {128, 64, 32}) {
    bool fits = true;
    for (const int64_t width : widths) fits = fits && width % size == 0;
    if (fits) return size;
  }
  return 0;
}

void require_group_divides(int64_t group_size, int64_t width, std::string_view tensor) {
  POTSTILL_CHECK(group_size > 0 && width > 0);
  if (width % group_size == 0) return;
  std::vector<int64_t> fitting;
  for (const int64_t size : {256, 128, 64, 32}) {
    if (width % size == 0) fitting.push_back(size);
  }
  throw Error(
      ErrorKind::kUsage, tensor, fmt::format("a group of {} inputs does not divide its width of {}", group_size, width),
      fitting.empty() ? "no group of 32 or more divides this width: this tensor cannot be stored in 4 bits"
                      : fmt::format("group sizes that fit it: {}; or --group-size auto", fmt::join(fitting, ", ")));
}

}  // namespace potstill
