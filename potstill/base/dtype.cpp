#include "potstill/base/dtype.h"

#include <array>
#include <bit>

#include "potstill/base/checked_math.h"

namespace potstill {
namespace {

struct DTypeInfo {
  std::string_view name;
  int64_t block_elements, block_bytes;
};

// In the order of the enumerators.
constexpr std::array<DTypeInfo, 13> kInfo{{{"F64", 1, 8},
                                           {"F32", 1, 4},
                                           {"F16", 1, 2},
                                           {"BF16", 1, 2},
                                           {"I64", 1, 8},
                                           {"I32", 1, 4},
                                           {"I16", 1, 2},
                                           {"I8", 1, 1},
                                           {"U8", 1, 1},
                                           {"BOOL", 1, 1},
                                           {"Q4_0", 32, 18},
                                           {"Q4_1", 32, 20},
                                           {"Q8_0", 32, 34}}};

const DTypeInfo& info(DType dtype) { return kInfo[static_cast<size_t>(dtype)]; }

}  // namespace

std::string_view dtype_name(DType dtype) { return info(dtype).name; }
int64_t block_elements(DType dtype) { return info(dtype).block_elements; }
int64_t block_bytes(DType dtype) { return info(dtype).block_bytes; }

std::optional<uint64_t> tensor_bytes(DType dtype, std::span<const int64_t> shape) {
  const auto count = num_elements(shape);
  if (!count) return std::nullopt;
  const int64_t block = block_elements(dtype);
  if (block > 1 && (shape.empty() || shape.back() % block != 0)) return std::nullopt;
  return checked_mul(static_cast<uint64_t>(*count / block), static_cast<uint64_t>(block_bytes(dtype)));
}

uint16_t float_to_half(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;   // NaN
  if (magnitude >= 0x477ff000) return sign | 0x7c00;  // rounds past 65504
  if (magnitude < 0x38800000) {                       // below 2^-14: subnormal
    // Adding 0.5 lets the hardware round the 24-bit mantissa at the place of a half's last subnormal bit, 2^-24.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return sign | static_cast<uint16_t>(std::bit_cast<uint32_t>(shifted) - 0x3f000000);
  }
  const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
  return sign | static_cast<uint16_t>((rounded - 0x38000000) >> 13);
}

float half_to_float(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1f;
  const uint32_t mantissa = bits & 0x3ff;
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24
    const float magnitude = static_cast<float>(mantissa) * 0x1.0p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000 | (mantissa << 13) | (mantissa ? 0x400000 : 0));
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

uint16_t float_to_bfloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>((bits >> 16) | 64);  // NaN, forced quiet
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

float bfloat16_to_float(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

}  // namespace potstill
