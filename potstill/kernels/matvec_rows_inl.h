// One token or a few times a block-quantized weight, row by row: for registers too short to hold rows side by side.
#pragma once

namespace potstill::kernels {
namespace {

constexpr size_t kPrefetchBytes = 2048;

// Rows [0, kRows) of a weight times kTokens tokens. With weight = d * (code - offset) + m, a block adds
//   d * scale * Σ (code - offset) * x  +  m * (scale Σ x)
// to the row's lanes, the inner sum in integers.
template <class Format, bool kExact, int kRows, int kTokens>
void dot_rows(const std::byte* data, size_t row_bytes, int64_t num_blocks, const Activations& x, int64_t token,
              bool add, float* y, int64_t y_stride) {
  Lanes sum[kTokens][kRows];
  for (int t = 0; t < kTokens; ++t) {
    for (int r = 0; r < kRows; ++r) sum[t][r] = zero_lanes();
  }
  // The hardware's prefetchers stop at the end of a page; this reaches past it, some groups of rows ahead.
  const size_t group_bytes = kRows * row_bytes;
  const std::byte* ahead = data + (kPrefetchBytes + group_bytes - 1) / group_bytes * group_bytes;
  for (int64_t b = 0; b < num_blocks; ++b) {
    for (int r = 0; r < kRows; ++r) {
      __builtin_prefetch(ahead + static_cast<size_t>(r) * row_bytes + b * Format::kBytes);
    }
    Terms terms[kTokens];
    for (int t = 0; t < kTokens; ++t) {
      const int64_t codes = (token + t) * x.cols + b * kBlock, at = (token + t) * num_blocks + b;
      terms[t] = {x.high + codes, kExact ? x.low + codes : nullptr, broadcast4(x.scales[at]),
                  Format::kHasMin ? F4{x.block_sums[at], 0, 0, 0} : F4{}};
    }
    for (int r = 0; r < kRows; ++r) {
      const Weights weights = load_weights<Format>(data + static_cast<size_t>(r) * row_bytes + b * Format::kBytes);
      for (int t = 0; t < kTokens; ++t) {
        sum[t][r] = weights.scales * terms[t].scales * dot<kExact>(weights, terms[t]) + sum[t][r];
        if constexpr (Format::kHasMin) sum[t][r] = weights.minima * terms[t].block_sums + sum[t][r];
      }
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    for (int r = 0; r < kRows; ++r) {
      float& out = y[t * y_stride + r];
      out = add ? out + reduce4(sum[t][r]) : reduce4(sum[t][r]);
    }
  }
}

// Rows go in strips that stay in the L1 while all the tokens pass.
template <class Format, bool kExact>
void matvec_codes(const MatrixView& weight, int64_t row_begin, int64_t row_end, const Activations& x,
                  int64_t token_begin, int64_t token_end, bool add, float* y, int64_t y_stride) {
  constexpr int64_t kStrip = 8;
  const int64_t num_blocks = weight.cols / kBlock;
  const auto rows = [&]<int kRows, int kTokens>(int64_t row, int64_t token) {
    dot_rows<Format, kExact, kRows, kTokens>(weight.row(row), weight.row_bytes, num_blocks, x, token, add,
                                             y + (token - token_begin) * y_stride + row - row_begin, y_stride);
  };
  for (int64_t strip = row_begin; strip < row_end; strip += kStrip) {
    const int64_t end = strip + kStrip < row_end ? strip + kStrip : row_end;
    for (int64_t token = token_begin; token < token_end;) {
      const bool two = token + 2 <= token_end;
      int64_t row = strip;
      for (; row + 4 <= end; row += 4) {
        two ? rows.template operator()<4, 2>(row, token) : rows.template operator()<4, 1>(row, token);
      }
      for (; row < end; ++row) {
        two ? rows.template operator()<1, 2>(row, token) : rows.template operator()<1, 1>(row, token);
      }
      token += two ? 2 : 1;
    }
  }
}

}  // namespace
}  // namespace potstill::kernels
