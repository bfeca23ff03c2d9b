// One token times a weight, straight from the file's bytes: decode reads every weight once, so this runs at the speed
// of the memory when the arithmetic stays under about four cycles a block.
#pragma once

namespace potstill::kernels {
namespace {

constexpr int64_t kMatvecRows = 4;  // rows that share a load of the activations, each a chain of additions of its own

template <bool kFast>
struct PartialSum {  // integer products come in eight lanes
  using Type = F8;
};
template <>
struct PartialSum<false> {
  using Type = F;
};

// What a block-quantized row is multiplied with: `values` in exact mode, `codes` and `scales` in fast mode.
struct TokenView {
  const float *values, *block_sums, *scales;
  const int8_t* codes;
};

// y[r] = Σ_k w[r, k] x[k] for kRows rows. With w = d * code + m per block,
//   Σ_b d_b (Σ code * x) + m_b (Σ x):
// the second sum needs the blocks' sums of x alone and is taken sixteen blocks at a time, as are the scales.
template <class Format, bool kFast, int kRows>
void dot_rows(const std::byte* data, size_t row_bytes, int64_t num_blocks, const TokenView& x, float* y) {
  using Partial = typename PartialSum<kFast>::Type;
  Partial sum[kRows];
  F offsets[kRows];
  for (int r = 0; r < kRows; ++r) set_zero(sum[r]), offsets[r] = zero();
  for (int64_t first = 0; first < num_blocks; first += 16) {
    const int64_t count = num_blocks - first < 16 ? num_blocks - first : 16;
    const std::byte* blocks = data + first * Format::kBytes;
    alignas(64) float factor[kRows][16];
    const F block_sums = load_up_to_16(x.block_sums + first, count);
    const F scales = kFast ? load_up_to_16(x.scales + first, count) : zero();
    for (int r = 0; r < kRows; ++r) {
      F d, m;
      load_block_halves<Format>(blocks + static_cast<size_t>(r) * row_bytes, count, d, m);
      if constexpr (Format::kHasMin) {
        offsets[r] = fma(m, block_sums, offsets[r]);
      } else if constexpr (Format::kOffset != 0) {
        offsets[r] = fma(mul(d, broadcast(-Format::kOffset)), block_sums, offsets[r]);
      }
      store(factor[r], kFast ? mul(d, scales) : d);
    }
    for (int64_t i = 0; i < count; ++i, blocks += Format::kBytes) {
      const int64_t at = (first + i) * kBlock;
      for (int r = 0; r < kRows; ++r) {
        const uint8_t* qs = codes_of<Format>(blocks + static_cast<size_t>(r) * row_bytes);
        if constexpr (kFast) {
          sum[r] = fma8(block_dot<Format>(qs, x.codes + at), factor[r][i], sum[r]);
        } else {
          F low, high;
          unpack_block<Format>(qs, low, high);
          const F dot = fma(high, load(x.values + at + 16), mul(low, load(x.values + at)));
          sum[r] = fma(dot, broadcast(factor[r][i]), sum[r]);
        }
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    if constexpr (kFast) {
      y[r] = reduce_add8(add8(sum[r], fold(offsets[r])));
    } else {
      y[r] = reduce_add(add(sum[r], offsets[r]));
    }
  }
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

template <class Format, bool kFast>
void matvec_rows(const MatrixView& weight, int64_t row_begin, int64_t row_end, const TokenView& x, float* y) {
  const int64_t num_blocks = weight.cols / kBlock;
  int64_t r = row_begin;
  for (; r + kMatvecRows <= row_end; r += kMatvecRows, y += kMatvecRows) {
    dot_rows<Format, kFast, kMatvecRows>(weight.row(r), weight.row_bytes, num_blocks, x, y);
  }
  for (; r < row_end; ++r, ++y) dot_rows<Format, kFast, 1>(weight.row(r), weight.row_bytes, num_blocks, x, y);
}

template <class Format>
void matvec_blocks(const MatrixView& weight, int64_t row_begin, int64_t row_end, const Activations& x, int64_t token,
                   float* y) {
  const int64_t blocks = token * (weight.cols / kBlock), values = token * weight.cols;
  TokenView view{x.values + values, x.block_sums + blocks, nullptr, nullptr};
  if (x.codes == nullptr) return matvec_rows<Format, false>(weight, row_begin, row_end, view, y);
  view.codes = x.codes + values;
  view.scales = x.scales + blocks;
  matvec_rows<Format, true>(weight, row_begin, row_end, view, y);
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
