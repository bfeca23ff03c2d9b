// One token or a few times a weight, straight from the file's bytes: decode reads every weight once, so this must keep
// up with the memory. matvec_codes() of the block formats is in matvec_lanes_inl.h or matvec_rows_inl.h.
#pragma once

namespace potstill::kernels {
namespace {

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

template <class Row>
void matvec_floats(const MatrixView& weight, int64_t row_begin, int64_t row_end, const Activations& x,
                   int64_t token_begin, int64_t token_end, bool add, float* y, int64_t y_stride) {
  for (int64_t r = row_begin; r < row_end; ++r) {
    for (int64_t t = token_begin; t < token_end; ++t) {
      float& out = y[(t - token_begin) * y_stride + r - row_begin];
      const float sum = dot_floats<Row>(weight.row(r), weight.cols, x.values + t * x.cols);
      out = add ? out + sum : sum;
    }
  }
}

void matvec(const MatrixView& weight, int64_t row_begin, int64_t row_end, const Activations& x, int64_t token_begin,
            int64_t token_end, bool add, float* y, int64_t y_stride) {
  const auto codes = [&]<class Format>(Format) {
    x.low != nullptr
        ? matvec_codes<Format, true>(weight, row_begin, row_end, x, token_begin, token_end, add, y, y_stride)
        : matvec_codes<Format, false>(weight, row_begin, row_end, x, token_begin, token_end, add, y, y_stride);
  };
  const auto floats = [&]<class Row>(Row) {
    matvec_floats<Row>(weight, row_begin, row_end, x, token_begin, token_end, add, y, y_stride);
  };
  switch (weight.dtype) {
    case DType::kF32:
      return floats(F32Row{});
    case DType::kF16:
      return floats(F16Row{});
    case DType::kBF16:
      return floats(BF16Row{});
    case DType::kQ4_0:
      return codes(Q4_0{});
    case DType::kQ4_1:
      return codes(Q4_1{});
    case DType::kQ8_0:
      return codes(Q8_0{});
    default:
      __builtin_unreachable();
  }
}

}  // namespace
}  // namespace potstill::kernels
