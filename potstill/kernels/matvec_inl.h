// One token or a few times a weight, straight from the file's bytes: decode reads every weight once, so this runs at
// the speed of the memory while the arithmetic of a block stays under about three cycles.
#pragma once

namespace potstill::kernels {
namespace {

constexpr size_t kPrefetchBytes = 2048;

// Rows [0, kRows) of a weight times kTokens tokens. A row's blocks are taken kStepBlocks at a time; with
// weight = d * (code - offset) + m, a step adds  d * scale * Σ (code - offset) * x  +  m * (scale Σ x)
// to the row's lanes, the inner sum in integers.
template <class Format, bool kExact, int kRows, int kTokens>
void dot_rows(const std::byte* data, size_t row_bytes, int64_t num_blocks, const TokenActivations* x, bool add,
              float* y, int64_t y_stride) {
  Lanes sum[kTokens][kRows];
  for (int t = 0; t < kTokens; ++t) {
    for (int r = 0; r < kRows; ++r) sum[t][r] = zero_lanes();
  }
  const auto step = [&]<bool kWhole>(int64_t b) __attribute__((always_inline)) {
    Terms terms[kTokens];
    for (int t = 0; t < kTokens; ++t) terms[t] = load_terms<Format>(x[t].units[b / 2], b % 2);
    for (int r = 0; r < kRows; ++r) {
      const std::byte* blocks = data + static_cast<size_t>(r) * row_bytes + b * Format::kBytes;
      const Weights weights = load_weights<Format, kWhole>(blocks);
      for (int t = 0; t < kTokens; ++t) {
        sum[t][r] =
            fma_lanes(mul_lanes(weights.scales, terms[t].scales), dot<Format, kExact>(weights, terms[t]), sum[t][r]);
        if constexpr (Format::kHasMin) sum[t][r] = fma_lanes(weights.minima, terms[t].block_sums, sum[t][r]);
      }
    }
  };
  // The hardware's prefetchers stop at the end of a page; this reaches past it, some groups of rows ahead.
  const size_t group_bytes = kRows * row_bytes;
  const std::byte* ahead = data + (kPrefetchBytes + group_bytes - 1) / group_bytes * group_bytes;
  int64_t b = 0;
  for (; b + kStepBlocks <= num_blocks; b += kStepBlocks) {
    for (int r = 0; r < kRows; ++r) {
      __builtin_prefetch(ahead + static_cast<size_t>(r) * row_bytes + b * Format::kBytes);
    }
    step.template operator()<true>(b);
  }
  if (b < num_blocks) step.template operator()<false>(b);
  for (int t = 0; t < kTokens; ++t) {
    for (int r = 0; r < kRows; r += 4) {
      float sums[4];
      reduce_4(&sum[t][r], kRows - r, sums);
      for (int i = 0; i < 4 && r + i < kRows; ++i) {
        float& out = y[t * y_stride + r + i];
        out = add ? out + sums[i] : sums[i];
      }
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

// What a matvec writes to.
struct VectorOutput {
  bool add;
  float* y;
  int64_t stride;
};

template <class Format, bool kExact, int kTokens>
void matvec_rows(const MatrixView& weight, int64_t row_begin, int64_t row_end, const TokenActivations* x,
                 const VectorOutput& out) {
  constexpr int kRows = kTokens == 1 ? 4 : 2;
  const int64_t num_blocks = weight.cols / kBlock;
  int64_t r = row_begin;
  for (; r + kRows <= row_end; r += kRows) {
    dot_rows<Format, kExact, kRows, kTokens>(weight.row(r), weight.row_bytes, num_blocks, x, out.add,
                                             out.y + r - row_begin, out.stride);
  }
  for (; r < row_end; ++r) {
    dot_rows<Format, kExact, 1, kTokens>(weight.row(r), weight.row_bytes, num_blocks, x, out.add, out.y + r - row_begin,
                                         out.stride);
  }
}

// Rows go in strips that stay in the L1 while all the tokens pass.
template <class Format, bool kExact>
void matvec_blocks(const MatrixView& weight, int64_t row_begin, int64_t row_end, const TokenActivations* x,
                   int64_t num_tokens, const VectorOutput& out) {
  if (num_tokens == 1) return matvec_rows<Format, kExact, 1>(weight, row_begin, row_end, x, out);
  constexpr int64_t kStrip = 8;
  for (int64_t row = row_begin; row < row_end; row += kStrip) {
    const int64_t end = row + kStrip < row_end ? row + kStrip : row_end;
    int64_t t = 0;
    const auto strip = [&]<int kTokens>() {
      matvec_rows<Format, kExact, kTokens>(weight, row, end, x + t,
                                           {out.add, out.y + t * out.stride + row - row_begin, out.stride});
      t += kTokens;
    };
    while (t + kMatvecTokens <= num_tokens) strip.template operator()<kMatvecTokens>();
    while (t + 2 <= num_tokens) strip.template operator()<2>();
    if (t < num_tokens) strip.template operator()<1>();
  }
}

template <class Format>
void matvec_format(const MatrixView& weight, int64_t row_begin, int64_t row_end, const TokenActivations* x,
                   int64_t num_tokens, CodeWidth width, const VectorOutput& out) {
  if (width == CodeWidth::kExact) return matvec_blocks<Format, true>(weight, row_begin, row_end, x, num_tokens, out);
  matvec_blocks<Format, false>(weight, row_begin, row_end, x, num_tokens, out);
}

template <class Row>
void matvec_floats(const MatrixView& weight, int64_t row_begin, int64_t row_end, const TokenActivations* x,
                   int64_t num_tokens, const VectorOutput& out) {
  for (int64_t r = row_begin; r < row_end; ++r) {
    for (int64_t t = 0; t < num_tokens; ++t) {
      float& y = out.y[t * out.stride + r - row_begin];
      const float sum = dot_floats<Row>(weight.row(r), weight.cols, x[t].values);
      y = out.add ? y + sum : sum;
    }
  }
}

void matvec(const MatrixView& weight, int64_t row_begin, int64_t row_end, const TokenActivations* x, int64_t num_tokens,
            CodeWidth width, bool add, float* y, int64_t y_stride) {
  const VectorOutput out{add, y, y_stride};
  switch (weight.dtype) {
    case DType::kF32:
      return matvec_floats<F32Row>(weight, row_begin, row_end, x, num_tokens, out);
    case DType::kF16:
      return matvec_floats<F16Row>(weight, row_begin, row_end, x, num_tokens, out);
    case DType::kBF16:
      return matvec_floats<BF16Row>(weight, row_begin, row_end, x, num_tokens, out);
    case DType::kQ4_0:
      return matvec_format<Q4_0>(weight, row_begin, row_end, x, num_tokens, width, out);
    case DType::kQ4_1:
      return matvec_format<Q4_1>(weight, row_begin, row_end, x, num_tokens, width, out);
    case DType::kQ8_0:
      return matvec_format<Q8_0>(weight, row_begin, row_end, x, num_tokens, width, out);
    default:
      __builtin_unreachable();
  }
}

}  // namespace
}  // namespace potstill::kernels
