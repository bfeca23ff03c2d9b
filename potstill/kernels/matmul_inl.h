// Many tokens times a weight. Sixteen rows of the weight are unpacked into a tile with the rows side by side, once for
// all tokens; then each lane is a row, an activation is broadcast to the lanes, and no sum crosses lanes.
#pragma once

namespace potstill::kernels {
namespace {

constexpr int64_t kTileRows = 16;

// Scratch of one thread: what the tile of a block format holds, and its expansion.
struct Tile {
  uint8_t* codes;  // [cols / 4, 16 rows, 4]
  float* scales;   // [cols / 32, 16 rows]
  float* minima;   // [cols / 32, 16 rows]
  float* floats;   // [kChunkCols, 16 rows]

  Tile(std::byte* scratch, int64_t cols) {
    const int64_t width = (cols + kBlock - 1) / kBlock * kBlock;
    codes = reinterpret_cast<uint8_t*>(scratch);
    scales = reinterpret_cast<float*>(scratch + width * 16);
    minima = scales + width / kBlock * 16;
    floats = minima + width / kBlock * 16;
  }
};

using Words = uint32_t __attribute__((vector_size(16)));

inline Words load_words(const uint8_t* p) {
  Words x;
  std::memcpy(&x, p, sizeof(x));
  return x;
}

// Four rows' four words each, so that rows[j] holds word j of the four.
inline void transpose_words(Words rows[4]) {
  const Words a = __builtin_shufflevector(rows[0], rows[1], 0, 4, 1, 5),
              b = __builtin_shufflevector(rows[2], rows[3], 0, 4, 1, 5);
  const Words c = __builtin_shufflevector(rows[0], rows[1], 2, 6, 3, 7),
              d = __builtin_shufflevector(rows[2], rows[3], 2, 6, 3, 7);
  rows[0] = __builtin_shufflevector(a, b, 0, 1, 4, 5);
  rows[1] = __builtin_shufflevector(a, b, 2, 3, 6, 7);
  rows[2] = __builtin_shufflevector(c, d, 0, 1, 4, 5);
  rows[3] = __builtin_shufflevector(c, d, 2, 3, 6, 7);
}

// Unpacks rows [row, row + num_rows) of a block format; missing rows repeat the last one and are never written out.
// Codes become unsigned bytes with value = scale * code + minimum, but for 8-bit codes that the fast products want
// signed (q8_offset 0).
template <class Format>
void unpack_tile(const MatrixView& weight, int64_t row, int64_t num_rows, int q8_offset, Tile& tile) {
  const int64_t num_blocks = weight.cols / kBlock;
  const uint32_t flip = q8_offset == 0 ? 0 : 0x80808080;
  const std::byte* rows[kTileRows];
  for (int64_t r = 0; r < kTileRows; ++r) rows[r] = weight.row(row + (r < num_rows ? r : num_rows - 1));
  for (int64_t b = 0; b < num_blocks; ++b) {
    alignas(64) uint32_t heads[kTileRows];  // a block's first four bytes: d, and m where there is one
    for (int64_t r = 0; r < kTileRows; ++r) std::memcpy(&heads[r], rows[r] + b * Format::kBytes, 4);
    const F scale = low_halves(heads);
    store(tile.scales + b * kTileRows, scale);
    const float offset = Format::kFourBits ? -Format::kOffset : static_cast<float>(-q8_offset);
    store(tile.minima + b * kTileRows, Format::kHasMin ? high_halves(heads) : mul(scale, broadcast(offset)));

    uint8_t* out = tile.codes + b * kBlock * kTileRows;
    const auto put = [out](int64_t word, int64_t first_row, Words words) {
      std::memcpy(out + (word * kTileRows + first_row) * 4, &words, sizeof(words));
    };
    for (int64_t r = 0; r < kTileRows; r += 4) {
      for (int64_t half = 0; half < (Format::kFourBits ? 1 : 2); ++half) {  // sixteen bytes of codes at a time
        Words words[4];
        for (int64_t i = 0; i < 4; ++i) {
          words[i] = load_words(codes_of<Format>(rows[r + i] + b * Format::kBytes) + 16 * half);
        }
        transpose_words(words);
        for (int64_t j = 0; j < 4; ++j) {
          if constexpr (Format::kFourBits) {  // low nibbles are elements 0..15, high ones 16..31
            put(j, r, words[j] & 0x0f0f0f0f);
            put(j + 4, r, (words[j] >> 4) & 0x0f0f0f0f);
          } else {
            put(4 * half + j, r, words[j] ^ flip);
          }
        }
      }
    }
  }
}

// tile.floats [num_cols, 16] = columns [col, col + num_cols) of an unpacked tile; col and num_cols are multiples of 32.
inline void expand_tile(const Tile& tile, int64_t col, int64_t num_cols) {
  for (int64_t b = col / kBlock; b < (col + num_cols) / kBlock; ++b) {
    const F scale = load(tile.scales + b * kTileRows), minimum = load(tile.minima + b * kTileRows);
    float* out = tile.floats + (b * kBlock - col) * kTileRows;
    for (int64_t j = 0; j < 8; ++j) {
      const uint8_t* words = tile.codes + (b * 8 + j) * 64;
      for (int i = 0; i < 4; ++i) store(out + (4 * j + i) * kTileRows, fma(byte_of(words, i), scale, minimum));
    }
  }
}

// The same for a row of floats; the tile is the transposed weight.
template <class Row>
void transpose_tile(const MatrixView& weight, int64_t row, int64_t num_rows, int64_t col, int64_t num_cols,
                    Tile& tile) {
  if (num_rows < kTileRows) std::memset(tile.floats, 0, static_cast<size_t>(num_cols * kTileRows) * sizeof(float));
  for (int64_t r = 0; r < num_rows; ++r) {
    const std::byte* data = weight.row(row + r);
    int64_t k = 0;
    for (; k + 16 <= num_cols; k += 16) {
      float values[16];
      store(values, Row::load16(data, col + k));
      for (int64_t i = 0; i < 16; ++i) tile.floats[(k + i) * kTileRows + r] = values[i];
    }
    for (; k < num_cols; ++k) tile.floats[k * kTileRows + r] = Row::load1(data, col + k);
  }
}

struct Output {
  float* y;  // of the tile's first row and the first token
  int64_t stride, num_rows;

  F read(int64_t token) const { return load_up_to_16(y + token * stride, num_rows); }
  void write(int64_t token, F x) const {
    if (num_rows == kTileRows) return store(y + token * stride, x);
    float values[16];
    store(values, x);
    for (int64_t r = 0; r < num_rows; ++r) y[token * stride + r] = values[r];
  }
};

// kTokens tokens times the expanded tile; `first` chunk of columns starts the sums, later ones add to y.
template <int kTokens>
void multiply_floats(const float* tile, int64_t num_cols, const float* x, int64_t x_stride, bool first, int64_t token,
                     const Output& out) {
  F sum[kTokens];
  for (int t = 0; t < kTokens; ++t) sum[t] = first ? zero() : out.read(token + t);
  const float* rows[kTokens];
  for (int t = 0; t < kTokens; ++t) rows[t] = x + t * x_stride;
  for (int64_t k = 0; k < num_cols; ++k) {
    const F weights = load(tile + k * kTileRows);
    for (int t = 0; t < kTokens; ++t) sum[t] = fma(weights, broadcast(rows[t][k]), sum[t]);
  }
  for (int t = 0; t < kTokens; ++t) out.write(token + t, sum[t]);
}

// kTokens tokens in 8 bits times the codes of the tile.
template <class Format, int kTokens>
void multiply_codes(const Tile& tile, int64_t num_blocks, const int8_t* codes, const float* scales, const float* sums,
                    int64_t token, const Output& out) {
  F total[kTokens];
  for (int t = 0; t < kTokens; ++t) total[t] = zero();
  for (int64_t b = 0; b < num_blocks; ++b) {
    Sum sum[kTokens];
    for (int t = 0; t < kTokens; ++t) sum[t] = zero_sum();
    const uint8_t* words = tile.codes + b * 8 * 64;
    const int8_t* x = codes + b * kBlock;
    for (int64_t j = 0; j < 8; ++j) {
      for (int t = 0; t < kTokens; ++t) {
        const int8_t* four = x + t * num_blocks * kBlock + 4 * j;
        if constexpr (Format::kFourBits) {
          sum[t] = dot_u4(sum[t], words + j * 64, four);
        } else {
          sum[t] = dot_q8(sum[t], words + j * 64, four);
        }
      }
    }
    const F scale = load(tile.scales + b * kTileRows), minimum = load(tile.minima + b * kTileRows);
    for (int t = 0; t < kTokens; ++t) {
      const int64_t i = t * num_blocks + b;
      const F dots = Format::kFourBits ? finish_u4(sum[t]) : finish_q8(sum[t]);
      total[t] = fma(mul(scale, broadcast(scales[i])), dots, total[t]);
      if constexpr (Format::kFourBits || kQ8Offset != 0) total[t] = fma(minimum, broadcast(sums[i]), total[t]);
    }
  }
  for (int t = 0; t < kTokens; ++t) out.write(token + t, total[t]);
}

// Calls function<n>(token) over [0, count) with n = kMost, then once with what is left.
template <int kMost, class Function>
void for_token_groups(int64_t count, const Function& function) {
  int64_t token = 0;
  for (; token + kMost <= count; token += kMost) function.template operator()<kMost>(token);
  if constexpr (kMost > 1) {
    if (token < count) {
      for_token_groups<kMost / 2>(count - token, [&]<int n>(int64_t t) { function.template operator()<n>(token + t); });
    }
  }
}

template <class Expand>
void matmul_expanded(const Activations& x, int64_t token_begin, int64_t num_tokens, const Tile& tile, const Output& out,
                     const Expand& expand) {
  const float* values = x.values + token_begin * x.cols;
  constexpr auto kChunk = static_cast<int64_t>(kChunkCols);
  for (int64_t col = 0; col < x.cols; col += kChunk) {
    const int64_t num_cols = x.cols - col < kChunk ? x.cols - col : kChunk;
    expand(col, num_cols);
    for_token_groups<kMatmulTokens>(num_tokens, [&]<int n>(int64_t t) {
      multiply_floats<n>(tile.floats, num_cols, values + t * x.cols + col, x.cols, col == 0, t, out);
    });
  }
}

template <class Format>
void matmul_blocks(const MatrixView& weight, int64_t row, int64_t num_rows, const Activations& x, int64_t token_begin,
                   int64_t num_tokens, Tile& tile, const Output& out) {
  const int64_t num_blocks = weight.cols / kBlock;
  if (x.codes == nullptr) {
    unpack_tile<Format>(weight, row, num_rows, 128, tile);
    return matmul_expanded(x, token_begin, num_tokens, tile, out,
                           [&](int64_t col, int64_t num_cols) { expand_tile(tile, col, num_cols); });
  }
  unpack_tile<Format>(weight, row, num_rows, kQ8Offset, tile);
  for_token_groups<kIntMatmulTokens>(num_tokens, [&]<int n>(int64_t t) {
    const int64_t token = token_begin + t;
    multiply_codes<Format, n>(tile, num_blocks, x.codes + token * weight.cols, x.scales + token * num_blocks,
                              x.block_sums + token * num_blocks, t, out);
  });
}

template <class Row>
void matmul_floats(const MatrixView& weight, int64_t row, int64_t num_rows, const Activations& x, int64_t token_begin,
                   int64_t num_tokens, Tile& tile, const Output& out) {
  matmul_expanded(x, token_begin, num_tokens, tile, out, [&](int64_t col, int64_t num_cols) {
    transpose_tile<Row>(weight, row, num_rows, col, num_cols, tile);
  });
}

void matmul(const MatrixView& weight, int64_t row_begin, int64_t row_end, const Activations& x, int64_t token_begin,
            int64_t token_end, float* y, int64_t y_stride, std::byte* scratch) {
  Tile tile(scratch, weight.cols);
  const int64_t num_tokens = token_end - token_begin;
  for (int64_t row = row_begin; row < row_end; row += kTileRows) {
    const int64_t num_rows = row_end - row < kTileRows ? row_end - row : kTileRows;
    const Output out{y + row - row_begin, y_stride, num_rows};
    switch (weight.dtype) {
      case DType::kF32:
        matmul_floats<F32Row>(weight, row, num_rows, x, token_begin, num_tokens, tile, out);
        break;
      case DType::kF16:
        matmul_floats<F16Row>(weight, row, num_rows, x, token_begin, num_tokens, tile, out);
        break;
      case DType::kBF16:
        matmul_floats<BF16Row>(weight, row, num_rows, x, token_begin, num_tokens, tile, out);
        break;
      case DType::kQ4_0:
        matmul_blocks<Q4_0>(weight, row, num_rows, x, token_begin, num_tokens, tile, out);
        break;
      case DType::kQ4_1:
        matmul_blocks<Q4_1>(weight, row, num_rows, x, token_begin, num_tokens, tile, out);
        break;
      case DType::kQ8_0:
        matmul_blocks<Q8_0>(weight, row, num_rows, x, token_begin, num_tokens, tile, out);
        break;
      default:
        __builtin_unreachable();
    }
  }
}

}  // namespace
}  // namespace potstill::kernels
