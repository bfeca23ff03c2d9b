// DType: how the elements of a tensor are stored.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace potstill {

enum class DType : uint8_t { kF64, kF32, kF16, kBF16, kI64, kI32, kI16, kI8, kU8, kBool, kQ4_0, kQ4_1, kQ8_0 };

std::string_view dtype_name(DType dtype);  // "F32", "BF16", "Q4_0", … as safetensors and ggml spell them

// Elements of a block and its bytes: (1, 4) for F32, (32, 18) for Q4_0. A row of a tensor is a whole number of blocks.
int64_t block_elements(DType dtype);
int64_t block_bytes(DType dtype);
inline bool is_block_quantized(DType dtype) { return block_elements(dtype) > 1; }
inline bool is_float(DType dtype) {
  return dtype == DType::kF64 || dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

// Bytes of a tensor; nothing on overflow, a negative dimension, or a last dimension that is no multiple of the block.
std::optional<uint64_t> tensor_bytes(DType dtype, std::span<const int64_t> shape);

// IEEE binary16 and bfloat16, round to nearest even; NaN stays NaN (quiet), overflow becomes infinity.
uint16_t float_to_half(float value);
float half_to_float(uint16_t bits);
uint16_t float_to_bfloat16(float value);
float bfloat16_to_float(uint16_t bits);

}  // namespace potstill
