// The block formats as the products see them: element k of a block is d * code[k] + m. Byte layouts: spec of GGUF's
// ggml types; restated in potstill/formats/ggml_blocks.h, which this folder reads nothing of at run time.
#pragma once

namespace potstill::kernels {
namespace {

inline uint16_t load_u16(const std::byte* p) {
  uint16_t x;
  std::memcpy(&x, p, 2);
  return x;
}

struct Q4_0 {
  static constexpr int64_t kBytes = 18, kCodes = 2;  // fp16 d, sixteen bytes of codes
  static constexpr bool kHasMin = false, kFourBits = true;
  static constexpr float kOffset = 8;  // value = d * (code - 8)
};
struct Q4_1 {
  static constexpr int64_t kBytes = 20, kCodes = 4;  // fp16 d, fp16 m, sixteen bytes of codes
  static constexpr bool kHasMin = true, kFourBits = true;
  static constexpr float kOffset = 0;
};
struct Q8_0 {
  static constexpr int64_t kBytes = 34, kCodes = 2;  // fp16 d, thirty-two signed bytes
  static constexpr bool kHasMin = false, kFourBits = false;
  static constexpr float kOffset = 0;
};

struct F32Row {
  static F load16(const std::byte* row, int64_t k) { return load(reinterpret_cast<const float*>(row) + k); }
  static float load1(const std::byte* row, int64_t k) {
    float x;
    std::memcpy(&x, row + 4 * k, 4);
    return x;
  }
};
struct F16Row {
  static F load16(const std::byte* row, int64_t k) { return load_half(reinterpret_cast<const uint16_t*>(row) + k); }
  static float load1(const std::byte* row, int64_t k) { return half_to_float(load_u16(row + 2 * k)); }
};
struct BF16Row {
  static F load16(const std::byte* row, int64_t k) { return load_bfloat(reinterpret_cast<const uint16_t*>(row) + k); }
  static float load1(const std::byte* row, int64_t k) { return bfloat16_to_float(load_u16(row + 2 * k)); }
};

template <class Format>
const uint8_t* codes_of(const std::byte* block) {
  return reinterpret_cast<const uint8_t*>(block) + Format::kCodes;
}

template <class Format>
void dequantize_blocks(const MatrixView& weight, int64_t row, float* out) {
  const int64_t num_blocks = weight.cols / kBlock;
  const bool in_lanes = weight.lane_group != 0;
  for (int64_t b = 0; b < num_blocks; ++b) {
    std::byte gathered[Format::kBytes];
    if (in_lanes) LaneGroup<Format>(weight, row).gather(b, row % weight.lane_group, gathered);
    const std::byte* block = in_lanes ? gathered : weight.row(row) + b * Format::kBytes;
    const float d = half_to_float(load_u16(block));
    const float m = Format::kHasMin ? half_to_float(load_u16(block + 2)) : 0.0f;
    const uint8_t* qs = codes_of<Format>(block);
    for (int64_t j = 0; j < kBlock; ++j) {
      float code;
      if constexpr (Format::kFourBits) {
        code = static_cast<float>(j < 16 ? qs[j] & 15 : qs[j - 16] >> 4) - Format::kOffset;
      } else {
        code = static_cast<float>(static_cast<int8_t>(qs[j]));
      }
      out[b * kBlock + j] = Format::kHasMin ? d * code + m : d * code;
    }
  }
}

template <class Row>
void dequantize_floats(const std::byte* row, int64_t cols, float* out) {
  int64_t k = 0;
  for (; k + 16 <= cols; k += 16) store(out + k, Row::load16(row, k));
  for (; k < cols; ++k) out[k] = Row::load1(row, k);
}

void dequantize_row(const MatrixView& weight, int64_t row, float* out) {
  const std::byte* data = weight.row(row);
  switch (weight.dtype) {
    case DType::kF32:
      return dequantize_floats<F32Row>(data, weight.cols, out);
    case DType::kF16:
      return dequantize_floats<F16Row>(data, weight.cols, out);
    case DType::kBF16:
      return dequantize_floats<BF16Row>(data, weight.cols, out);
    case DType::kQ4_0:
      return dequantize_blocks<Q4_0>(weight, row, out);
    case DType::kQ4_1:
      return dequantize_blocks<Q4_1>(weight, row, out);
    case DType::kQ8_0:
      return dequantize_blocks<Q8_0>(weight, row, out);
    default:
      __builtin_unreachable();
  }
}

}  // namespace
}  // namespace potstill::kernels
