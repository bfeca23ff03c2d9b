// ggml's blocks of 32 weights, and rows of any float type.          ggml-org/ggml: ggml-common.h, ggml-quants.c
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "potstill/base/dtype.h"

namespace potstill {

constexpr int64_t kBlockSize = 32;  // weights of a Q4_0, Q4_1 or Q8_0 block

struct BlockQ4_0 {
  uint16_t d;      // fp16 scale
  uint8_t qs[16];  // byte j: element j in the low nibble, element j + 16 in the high one; value = d · (nibble − 8)
};
struct BlockQ4_1 {
  uint16_t d, m;   // fp16 scale and minimum
  uint8_t qs[16];  // as in Q4_0; value = d · nibble + m
};
struct BlockQ8_0 {
  uint16_t d;     // fp16 scale
  int8_t qs[32];  // value = d · q
};
static_assert(sizeof(BlockQ4_0) == 18 && alignof(BlockQ4_0) == 2);
static_assert(sizeof(BlockQ4_1) == 20 && alignof(BlockQ4_1) == 2);
static_assert(sizeof(BlockQ8_0) == 34 && alignof(BlockQ8_0) == 2);

// count is a multiple of kBlockSize. Blocks may lie at any address: a mapped file aligns to what it says it does.
void dequantize_row_q4_0(const BlockQ4_0* blocks, float* values, size_t count);
void dequantize_row_q4_1(const BlockQ4_1* blocks, float* values, size_t count);
void dequantize_row_q8_0(const BlockQ8_0* blocks, float* values, size_t count);

// ggml's reference quantizers, code for code. Values must be finite.
void quantize_row_q4_0_ref(const float* values, BlockQ4_0* blocks, size_t count);
void quantize_row_q4_1_ref(const float* values, BlockQ4_1* blocks, size_t count);
void quantize_row_q8_0_ref(const float* values, BlockQ8_0* blocks, size_t count);

void half_to_float_row(const uint16_t* halves, float* values, size_t count);
void bfloat16_to_float_row(const uint16_t* bits, float* values, size_t count);

// Stored bytes of any float or block type <-> fp32; encoded.size() is tensor_bytes(dtype, {values.size()}).
// F64 is read (rounded), not written.
void decode_row(DType dtype, std::span<const std::byte> encoded, std::span<float> values);
void encode_row(DType dtype, std::span<const float> values, std::span<std::byte> encoded);
bool is_decodable(DType dtype);

}  // namespace potstill
