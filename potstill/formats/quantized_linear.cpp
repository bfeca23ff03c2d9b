#include "potstill/formats/quantized_linear.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "potstill/base/check.h"
#include "potstill/base/error.h"
#include "potstill/formats/ggml_blocks.h"

namespace potstill {
namespace {

[[noreturn]] void fail(const QuantizedLinear& linear, std::string_view where, const std::string& what) {
  throw Error(ErrorKind::kInput, where, fmt::format("quantized linear '{}': {}", linear.name, what));
}

size_t index(int64_t row, int64_t column, int64_t columns) { return static_cast<size_t>(row * columns + column); }

void check_rows(const QuantizedLinear& linear, int64_t row_begin, int64_t num_rows) {
  POTSTILL_CHECK(row_begin >= 0 && num_rows >= 0 && row_begin <= linear.out_features - num_rows);
}

uint16_t exact_half(const QuantizedLinear& linear, float scale) {
  const uint16_t half = float_to_half(scale);
  if (half_to_float(half) == scale) return half;
  throw Error(ErrorKind::kNumeric, linear.name,
              fmt::format("scale {} is no fp16 value; stored, it would change the weights", scale),
              "quantize with scales rounded to fp16");
}

// Codes of 32 neighbours as ggml packs them: element j low, element j + 16 high.
void pack_nibbles(const uint8_t* codes, uint8_t* qs) {
  for (int j = 0; j < 16; ++j) qs[j] = static_cast<uint8_t>(codes[j] | (codes[j + 16] << 4));
}

}  // namespace

void check_quantized_linear(const QuantizedLinear& linear, std::string_view where) {
  const int64_t out = linear.out_features, in = linear.in_features, group = linear.group_size;
  if (linear.bits != 4 && linear.bits != 8) fail(linear, where, fmt::format("codes of {} bits", linear.bits));
  if (out < 1 || in < 1 || group < 1 || in % group != 0) {
    fail(linear, where, fmt::format("groups of {} do not divide [{}, {}]", group, out, in));
  }
  const auto num_codes = static_cast<size_t>(out * in), num_scales = static_cast<size_t>(out * (in / group));
  if (linear.codes.size() != num_codes) {
    fail(linear, where, fmt::format("{} codes where [{}, {}] takes {}", linear.codes.size(), out, in, num_codes));
  }
  if (linear.scales.size() != num_scales) {
    fail(linear, where, fmt::format("{} scales where {} are needed", linear.scales.size(), num_scales));
  }
  if (linear.zeros.size() != (linear.symmetric ? 0 : num_scales)) {
    fail(linear, where,
         fmt::format("{} zeros where {} are needed", linear.zeros.size(), linear.symmetric ? 0 : num_scales));
  }
  const auto over_15 = [](uint8_t code) { return code > 15; };
  if (linear.bits == 8) return;
  if (std::ranges::any_of(linear.codes, over_15) || std::ranges::any_of(linear.zeros, over_15)) {
    fail(linear, where, "a code or zero is over 15");
  }
}

void require_finite_scales(std::span<const float> scales, std::string_view tensor, std::string_view where) {
  const auto bad = std::ranges::find_if(scales, [](float scale) { return !std::isfinite(scale); });
  if (bad == scales.end()) return;
  throw Error(ErrorKind::kFormat, where, fmt::format("tensor '{}' holds the scale {}", tensor, *bad),
              "the file is damaged; fetch or quantize it again");
}

void dequantize_rows(const QuantizedLinear& linear, int64_t row_begin, int64_t num_rows, std::span<float> out) {
  check_rows(linear, row_begin, num_rows);
  const int64_t in = linear.in_features, group = linear.group_size, groups = linear.num_groups();
  POTSTILL_CHECK(out.size() == static_cast<size_t>(num_rows * in));
  float* to = out.data();
  for (int64_t row = row_begin; row < row_begin + num_rows; ++row) {
    for (int64_t g = 0; g < groups; ++g) {
      const float scale = linear.scales[index(row, g, groups)];
      const int zero = linear.symmetric ? linear.symmetric_zero() : linear.zeros[index(row, g, groups)];
      const uint8_t* codes = &linear.codes[index(row, g * group, in)];
      for (int64_t i = 0; i < group; ++i) *to++ = scale * static_cast<float>(codes[i] - zero);
    }
  }
}

DType block_dtype(const QuantizedLinear& linear) {
  if (linear.bits == 8) return DType::kQ8_0;
  return linear.symmetric ? DType::kQ4_0 : DType::kQ4_1;
}

void write_block_rows(const QuantizedLinear& linear, DType dtype, int64_t row_begin, int64_t num_rows,
                      std::span<std::byte> out) {
  check_rows(linear, row_begin, num_rows);
  POTSTILL_CHECK(dtype == DType::kQ4_0 || dtype == DType::kQ4_1 || dtype == DType::kQ8_0);
  if ((linear.bits == 8) != (dtype == DType::kQ8_0)) {
    fail(linear, dtype_name(dtype), fmt::format("has codes of {} bits, which this block does not hold", linear.bits));
  }
  const int64_t in = linear.in_features, group = linear.group_size, groups = linear.num_groups();
  if (group % kBlockSize != 0) {
    fail(linear, dtype_name(dtype), fmt::format("groups of {} are no multiple of {}", group, kBlockSize));
  }
  if (dtype != DType::kQ4_1 && !linear.symmetric) {
    fail(linear, dtype_name(dtype),
         fmt::format("has zero points, which {} cannot hold{}", dtype_name(dtype),
                     linear.bits == 4 ? "; write Q4_1" : ""));
  }
  POTSTILL_CHECK(out.size() == static_cast<size_t>(num_rows * in / kBlockSize * block_bytes(dtype)));
  std::byte* to = out.data();
  const auto put = [&to](const auto& block) {
    std::memcpy(to, &block, sizeof(block));
    to += sizeof(block);
  };
  for (int64_t row = row_begin; row < row_begin + num_rows; ++row) {
    for (int64_t i = 0; i < in; i += kBlockSize) {
      const float scale = linear.scales[index(row, i / group, groups)];
      const uint8_t* codes = &linear.codes[index(row, i, in)];
      if (dtype == DType::kQ4_0) {
        BlockQ4_0 block{.d = exact_half(linear, scale), .qs = {}};
        pack_nibbles(codes, block.qs);
        put(block);
      } else if (dtype == DType::kQ8_0) {
        BlockQ8_0 block{.d = exact_half(linear, scale), .qs = {}};
        for (int j = 0; j < kBlockSize; ++j) block.qs[j] = static_cast<int8_t>(codes[j] - 128);
        put(block);
      } else {
        const int zero = linear.symmetric ? linear.symmetric_zero() : linear.zeros[index(row, i / group, groups)];
        BlockQ4_1 block{
            .d = exact_half(linear, scale), .m = float_to_half(-scale * static_cast<float>(zero)), .qs = {}};
        pack_nibbles(codes, block.qs);
        put(block);
      }
    }
  }
}

}  // namespace potstill
