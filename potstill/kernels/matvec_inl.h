// One token times a weight, straight from the file's bytes: decode reads every weight once, so this runs at the speed
// of the memory when the arithmetic stays under about four cycles a block.
#pragma once

namespace potstill::kernels {
namespace {

// Σ_k w[k] x[k] of a block-quantized row. With w = d * code + m per block,
//   Σ_b d_b (Σ code * x) + m_b (Σ x):
// the second sum needs the blocks' sums of x alone and is taken sixteen blocks at a time, as are the scales.
template <class Format, bool kFast>
float dot_blocks(const std::byte* row, int64_t num_blocks, const float* x, const float* block_sums, const int8_t* codes,
                 const float* scales) {
  F offsets = zero();
  F exact0 = zero(), exact1 = zero();
  F8 fast0 = zero8(), fast1 = zero8();
  for (int64_t b = 0; b < num_blocks; b += 16) {
    const int64_t count = num_blocks - b < 16 ? num_blocks - b : 16;
    const std::byte* block = row + b * Format::kBytes;
    F d = load_block_halves<Format>(block, count, 0);
    if constexpr (Format::kHasMin) {
      offsets = fma(load_block_halves<Format>(block, count, 2), load_up_to_16(block_sums + b, count), offsets);
    } else if constexpr (Format::kOffset != 0) {
      offsets = fma(mul(d, broadcast(-Format::kOffset)), load_up_to_16(block_sums + b, count), offsets);
    }
    if constexpr (kFast) d = mul(d, load_up_to_16(scales + b, count));
    alignas(64) float factor[16];
    store(factor, d);
    for (int64_t i = 0; i < count; ++i, block += Format::kBytes) {
      const uint8_t* qs = codes_of<Format>(block);
      if constexpr (kFast) {
        const int8_t* xs = codes + (b + i) * kBlock;
        F8 dot;
        if constexpr (Format::kFourBits) {
          dot = block_dot_u4(qs, xs);
        } else {
          dot = block_dot_s8(reinterpret_cast<const int8_t*>(qs), xs);
        }
        F8& sum = i % 2 == 0 ? fast0 : fast1;  // two chains: one addition need not wait for the last
        sum = fma8(dot, factor[i], sum);
      } else {
        const float* xs = x + (b + i) * kBlock;
        F low, high;
        if constexpr (Format::kFourBits) {
          unpack_u4(qs, low, high);
        } else {
          low = load_i8(reinterpret_cast<const int8_t*>(qs));
          high = load_i8(reinterpret_cast<const int8_t*>(qs) + 16);
        }
        const F dot = fma(high, load(xs + 16), mul(low, load(xs)));
        F& sum = i % 2 == 0 ? exact0 : exact1;
        sum = fma(dot, broadcast(factor[i]), sum);
      }
    }
  }
  if constexpr (kFast) return reduce_add8(add8(fast0, fast1)) + reduce_add(offsets);
  return reduce_add(add(exact0, exact1)) + reduce_add(offsets);
}

template <class Row>
float dot_floats(const std::byte* row, int64_t cols, const float* x) {
  F sum[4] = {zero(), zero(), zero(), zero()};
  int64_t k = 0;
  for (; k + 64 <= cols; k += 64) {
    for (int i = 0; i < 4; ++i) sum[i] = fma(Row::load16(row, k + 16 * i), load(x + k + 16 * i), sum[i]);
  }
  for (; k + 16 <= cols; k += 16) sum[0] = fma(Row::load16(row, k), load(x + k), sum[0]);
  float tail = 0;
  for (; k < cols; ++k) tail += Row::load1(row, k) * x[k];
  return reduce_add(add(add(sum[0], sum[1]), add(sum[2], sum[3]))) + tail;
}

template <class Format>
void matvec_blocks(const MatrixView& weight, int64_t row_begin, int64_t row_end, const Activations& x, int64_t token,
                   float* y) {
  const int64_t num_blocks = weight.cols / kBlock;
  const float* sums = x.block_sums + token * num_blocks;
  if (x.codes != nullptr) {
    const int8_t* codes = x.codes + token * weight.cols;
    const float* scales = x.scales + token * num_blocks;
    for (int64_t r = row_begin; r < row_end; ++r) {
      y[r - row_begin] = dot_blocks<Format, true>(weight.row(r), num_blocks, nullptr, sums, codes, scales);
    }
  } else {
    const float* values = x.values + token * weight.cols;
    for (int64_t r = row_begin; r < row_end; ++r) {
      y[r - row_begin] = dot_blocks<Format, false>(weight.row(r), num_blocks, values, sums, nullptr, nullptr);
    }
  }
}

template <class Row>
void matvec_floats(const MatrixView& weight, int64_t row_begin, int64_t row_end, const Activations& x, int64_t token,
                   float* y) {
  const float* values = x.values + token * weight.cols;
  for (int64_t r = row_begin; r < row_end; ++r) y[r - row_begin] = dot_floats<Row>(weight.row(r), weight.cols, values);
}

void matvec(const MatrixView& weight, int64_t row_begin, int64_t row_end, const Activations& x, int64_t token,
            float* y) {
  switch (weight.dtype) {
    case DType::kF32:
      return matvec_floats<F32Row>(weight, row_begin, row_end, x, token, y);
    case DType::kF16:
      return matvec_floats<F16Row>(weight, row_begin, row_end, x, token, y);
    case DType::kBF16:
      return matvec_floats<BF16Row>(weight, row_begin, row_end, x, token, y);
    case DType::kQ4_0:
      return matvec_blocks<Q4_0>(weight, row_begin, row_end, x, token, y);
    case DType::kQ4_1:
      return matvec_blocks<Q4_1>(weight, row_begin, row_end, x, token, y);
    case DType::kQ8_0:
      return matvec_blocks<Q8_0>(weight, row_begin, row_end, x, token, y);
    default:
      __builtin_unreachable();
  }
}

}  // namespace
}  // namespace potstill::kernels
