#include "potstill/formats/ggml_blocks.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "potstill/base/check.h"
#include "potstill/base/error.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace potstill {
namespace {

// A block copied out of memory that may not be aligned; the compiler makes plain loads of it.
template <class Block>
Block load(const Block* blocks, size_t index) {
  Block block;
  std::memcpy(&block, reinterpret_cast<const std::byte*>(blocks) + index * sizeof(Block), sizeof(Block));
  return block;
}

template <class Block>
void store(Block* blocks, size_t index, const Block& block) {
  std::memcpy(reinterpret_cast<std::byte*>(blocks) + index * sizeof(Block), &block, sizeof(Block));
}

// Truncation to an unsigned byte as ggml's C code does it: values here lie in 0 … 16.
uint8_t clamped_nibble(float value) { return static_cast<uint8_t>(std::min(15, static_cast<int>(value))); }

#if defined(__x86_64__)
__attribute__((target("avx,f16c"))) size_t half_to_float_f16c(const uint16_t* halves, float* values, size_t count) {
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i packed = _mm_loadu_si128(reinterpret_cast<const __m128i*>(halves + i));
    _mm256_storeu_ps(values + i, _mm256_cvtph_ps(packed));
  }
  return i;
}
#endif

}  // namespace

void dequantize_row_q4_0(const BlockQ4_0* blocks, float* values, size_t count) {
  POTSTILL_CHECK(count % kBlockSize == 0);
  for (size_t b = 0; b < count / kBlockSize; ++b, values += kBlockSize) {
    const BlockQ4_0 block = load(blocks, b);
    const float d = half_to_float(block.d);
    for (int j = 0; j < 16; ++j) {
      values[j] = d * static_cast<float>((block.qs[j] & 15) - 8);
      values[j + 16] = d * static_cast<float>((block.qs[j] >> 4) - 8);
    }
  }
}

void dequantize_row_q4_1(const BlockQ4_1* blocks, float* values, size_t count) {
  POTSTILL_CHECK(count % kBlockSize == 0);
  for (size_t b = 0; b < count / kBlockSize; ++b, values += kBlockSize) {
    const BlockQ4_1 block = load(blocks, b);
    const float d = half_to_float(block.d), m = half_to_float(block.m);
    for (int j = 0; j < 16; ++j) {
      values[j] = d * static_cast<float>(block.qs[j] & 15) + m;
      values[j + 16] = d * static_cast<float>(block.qs[j] >> 4) + m;
    }
  }
}

void dequantize_row_q8_0(const BlockQ8_0* blocks, float* values, size_t count) {
  POTSTILL_CHECK(count % kBlockSize == 0);
  for (size_t b = 0; b < count / kBlockSize; ++b, values += kBlockSize) {
    const BlockQ8_0 block = load(blocks, b);
    const float d = half_to_float(block.d);
    for (int j = 0; j < kBlockSize; ++j) values[j] = d * static_cast<float>(block.qs[j]);
  }
}

void quantize_row_q4_0_ref(const float* values, BlockQ4_0* blocks, size_t count) {
  POTSTILL_CHECK(count % kBlockSize == 0);
  for (size_t b = 0; b < count / kBlockSize; ++b, values += kBlockSize) {
    float extreme = 0.0f;  // the value of largest magnitude, with its sign: it becomes code 0 exactly
    for (int j = 0; j < kBlockSize; ++j) {
      if (std::fabs(values[j]) > std::fabs(extreme)) extreme = values[j];
    }
    const float d = extreme / -8.0f;
    const float inverse = d != 0.0f ? 1.0f / d : 0.0f;
    BlockQ4_0 block{.d = float_to_half(d), .qs = {}};
    for (int j = 0; j < 16; ++j) {
      const uint8_t low = clamped_nibble(values[j] * inverse + 8.5f);
      const uint8_t high = clamped_nibble(values[j + 16] * inverse + 8.5f);
      block.qs[j] = static_cast<uint8_t>(low | (high << 4));
    }
    store(blocks, b, block);
  }
}

void quantize_row_q4_1_ref(const float* values, BlockQ4_1* blocks, size_t count) {
  POTSTILL_CHECK(count % kBlockSize == 0);
  for (size_t b = 0; b < count / kBlockSize; ++b, values += kBlockSize) {
    const auto [low_at, high_at] = std::minmax_element(values, values + kBlockSize);
    const float min = *low_at;
    const float d = (*high_at - min) / 15.0f;
    const float inverse = d != 0.0f ? 1.0f / d : 0.0f;
    BlockQ4_1 block{.d = float_to_half(d), .m = float_to_half(min), .qs = {}};
    for (int j = 0; j < 16; ++j) {
      const uint8_t low = clamped_nibble((values[j] - min) * inverse + 0.5f);
      const uint8_t high = clamped_nibble((values[j + 16] - min) * inverse + 0.5f);
      block.qs[j] = static_cast<uint8_t>(low | (high << 4));
    }
    store(blocks, b, block);
  }
}

void quantize_row_q8_0_ref(const float* values, BlockQ8_0* blocks, size_t count) {
  POTSTILL_CHECK(count % kBlockSize == 0);
  for (size_t b = 0; b < count / kBlockSize; ++b, values += kBlockSize) {
    float largest = 0.0f;
    for (int j = 0; j < kBlockSize; ++j) largest = std::max(largest, std::fabs(values[j]));
    const float d = largest / 127.0f;
    const float inverse = d != 0.0f ? 1.0f / d : 0.0f;
    BlockQ8_0 block{.d = float_to_half(d), .qs = {}};
    for (int j = 0; j < kBlockSize; ++j) {
      block.qs[j] = static_cast<int8_t>(std::round(values[j] * inverse));  // halves away from zero
    }
    store(blocks, b, block);
  }
}

void half_to_float_row(const uint16_t* halves, float* values, size_t count) {
  size_t i = 0;
#if defined(__x86_64__)
  static const bool has_f16c = __builtin_cpu_supports("avx2");  // clang 14 cannot ask for f16c; no avx2 is without it
  if (has_f16c) i = half_to_float_f16c(halves, values, count);
#endif
  for (; i < count; ++i) {
    uint16_t bits;
    std::memcpy(&bits, reinterpret_cast<const std::byte*>(halves) + i * sizeof(bits), sizeof(bits));
    values[i] = half_to_float(bits);
  }
}

void bfloat16_to_float_row(const uint16_t* bits, float* values, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    uint16_t upper;
    std::memcpy(&upper, reinterpret_cast<const std::byte*>(bits) + i * sizeof(upper), sizeof(upper));
    const uint32_t whole = static_cast<uint32_t>(upper) << 16;
    std::memcpy(values + i, &whole, sizeof(whole));
  }
}

bool is_decodable(DType dtype) { return is_float(dtype) || is_block_quantized(dtype); }

void decode_row(DType dtype, std::span<const std::byte> encoded, std::span<float> values) {
  const int64_t count = static_cast<int64_t>(values.size());
  POTSTILL_CHECK(tensor_bytes(dtype, std::span(&count, 1)) == encoded.size());
  const std::byte* from = encoded.data();
  switch (dtype) {
    case DType::kF32:
      if (!values.empty()) std::memcpy(values.data(), from, encoded.size());
      return;
    case DType::kF16:
      return half_to_float_row(reinterpret_cast<const uint16_t*>(from), values.data(), values.size());
    case DType::kBF16:
      return bfloat16_to_float_row(reinterpret_cast<const uint16_t*>(from), values.data(), values.size());
    case DType::kF64:
      for (float& value : values) {
        double wide;
        std::memcpy(&wide, from, sizeof(wide));
        from += sizeof(wide);
        value = static_cast<float>(wide);
      }
      return;
    case DType::kQ4_0:
      return dequantize_row_q4_0(reinterpret_cast<const BlockQ4_0*>(from), values.data(), values.size());
    case DType::kQ4_1:
      return dequantize_row_q4_1(reinterpret_cast<const BlockQ4_1*>(from), values.data(), values.size());
    case DType::kQ8_0:
      return dequantize_row_q8_0(reinterpret_cast<const BlockQ8_0*>(from), values.data(), values.size());
    default:
      throw Error(ErrorKind::kInput, dtype_name(dtype), "holds no weights: it is not a float or block type");
  }
}

void encode_row(DType dtype, std::span<const float> values, std::span<std::byte> encoded) {
  const int64_t count = static_cast<int64_t>(values.size());
  POTSTILL_CHECK(tensor_bytes(dtype, std::span(&count, 1)) == encoded.size());
  std::byte* to = encoded.data();
  const auto write_each = [&](auto convert) {
    for (const float value : values) {
      const uint16_t bits = convert(value);
      std::memcpy(to, &bits, sizeof(bits));
      to += sizeof(bits);
    }
  };
  switch (dtype) {
    case DType::kF32:
      if (!values.empty()) std::memcpy(to, values.data(), encoded.size());
      return;
    case DType::kF16:
      return write_each(float_to_half);
    case DType::kBF16:
      return write_each(float_to_bfloat16);
    case DType::kQ4_0:
      return quantize_row_q4_0_ref(values.data(), reinterpret_cast<BlockQ4_0*>(to), values.size());
    case DType::kQ4_1:
      return quantize_row_q4_1_ref(values.data(), reinterpret_cast<BlockQ4_1*>(to), values.size());
    case DType::kQ8_0:
      return quantize_row_q8_0_ref(values.data(), reinterpret_cast<BlockQ8_0*>(to), values.size());
    default:
      throw Error(ErrorKind::kInput, dtype_name(dtype), "cannot be written as weights",
                  "choose F32, F16, BF16, Q8_0, Q4_0 or Q4_1");
  }
}

}  // namespace potstill
