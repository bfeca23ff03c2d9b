// Many tokens times a weight. Some rows of the weight are unpacked into a tile with the rows side by side, once for all
// tokens; then each lane is a row, activations are broadcast to the lanes, and no sum crosses lanes. A tile is unpacked
// a chunk of columns at a time, so that it stays in the L1, and y carries the sums from chunk to chunk.
#pragma once

namespace potstill::kernels {
namespace {

constexpr int64_t kStripRows = 16;  // rows side by side; a tile is kTileRows / kStripRows strips

// Sixteen rows, a chunk of columns. Either the codes or the floats are filled.
struct Strip {
  uint8_t* codes;          // [kChunkCols / 4, 16 rows, 4]
  float *scales, *minima;  // [kChunkCols / 32, 16 rows]
  float* floats;           // [kChunkCols, 16 rows]

  Strip(std::byte* scratch, int64_t index) {
    constexpr int64_t kCodes = kChunkCols * kStripRows, kHeads = kChunkCols / kBlock * kStripRows;
    codes = reinterpret_cast<uint8_t*>(scratch) + index * kCodes;
    scales = reinterpret_cast<float*>(scratch + kTileRows * kChunkCols) + index * 2 * kHeads;
    minima = scales + kHeads;
    floats = reinterpret_cast<float*>(scratch);
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

// Unpacks blocks [first, first + num_blocks) of rows [row, row + num_rows); missing rows repeat the last one and are
// never written out. 4-bit codes become bytes; 8-bit ones stay, or become code + 128 where the products want them
// unsigned (kQ8Offset). What that adds is taken from the sums (Activations::offsets).
template <class Format>
void unpack_strip(const MatrixView& weight, int64_t row, int64_t num_rows, int64_t first, int64_t num_blocks,
                  const Strip& strip) {
  constexpr uint32_t kFlip = kQ8Offset == 0 ? 0 : 0x80808080;
  const std::byte* rows[kStripRows];
  for (int64_t r = 0; r < kStripRows; ++r) {
    rows[r] = weight.row(row + (r < num_rows ? r : num_rows - 1)) + first * Format::kBytes;
  }
  for (int64_t b = 0; b < num_blocks; ++b) {
    alignas(64) uint32_t heads[kStripRows];  // a block's first four bytes: d, and m where there is one
    for (int64_t r = 0; r < kStripRows; ++r) std::memcpy(&heads[r], rows[r] + b * Format::kBytes, 4);
    store(strip.scales + b * kStripRows, low_halves(heads));
    if constexpr (Format::kHasMin) store(strip.minima + b * kStripRows, high_halves(heads));

    uint8_t* out = strip.codes + b * kBlock * kStripRows;
    const auto put = [out](int64_t word, int64_t first_row, Words words) {
      std::memcpy(out + (word * kStripRows + first_row) * 4, &words, sizeof(words));
    };
    for (int64_t r = 0; r < kStripRows; r += 4) {
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
            put(4 * half + j, r, words[j] ^ kFlip);
          }
        }
      }
    }
  }
}

// The same of rows that lie side by side: their words are a tile's already.
template <class Format>
void unpack_lanes(const MatrixView& weight, int64_t row, int64_t first, int64_t num_blocks, const Strip& strip) {
  constexpr uint32_t kFlip = kQ8Offset == 0 ? 0 : 0x80808080;
  const LaneGroup<Format> group(weight, row);
  const int64_t lane = row % group.num_rows;
  const auto halves = [](const std::byte* p) { return load_half(reinterpret_cast<const uint16_t*>(p)); };
  for (int64_t b = 0; b < num_blocks; ++b) {
    store(strip.scales + b * kStripRows, halves(group.scales(first + b, lane)));
    if constexpr (Format::kHasMin) store(strip.minima + b * kStripRows, halves(group.minima(first + b, lane)));
    uint8_t* out = strip.codes + b * kBlock * kStripRows;
    for (int64_t j = 0; j < group.kWords; ++j) {
      const auto* codes = reinterpret_cast<const uint8_t*>(group.codes(first + b, j, lane));
      for (int64_t i = 0; i < 4 * kStripRows; i += 16, out += 16) {
        const Words words = load_words(codes + i);
        const Words low = Format::kFourBits ? words & 0x0f0f0f0f : words ^ kFlip;
        std::memcpy(out, &low, sizeof(low));
        if constexpr (Format::kFourBits) {
          const Words high = (words >> 4) & 0x0f0f0f0f;
          std::memcpy(out + 16 * kStripRows, &high, sizeof(high));
        }
      }
    }
  }
}

// strip.floats [num_cols, 16] = columns [col, col + num_cols), transposed.
template <class Row>
void transpose_strip(const MatrixView& weight, int64_t row, int64_t num_rows, int64_t col, int64_t num_cols,
                     const Strip& strip) {
  if (num_rows < kStripRows) std::memset(strip.floats, 0, static_cast<size_t>(num_cols * kStripRows) * sizeof(float));
  for (int64_t r = 0; r < num_rows; ++r) {
    const std::byte* data = weight.row(row + r);
    int64_t k = 0;
    for (; k + 16 <= num_cols; k += 16) {
      float values[16];
      store(values, Row::load16(data, col + k));
      for (int64_t i = 0; i < 16; ++i) strip.floats[(k + i) * kStripRows + r] = values[i];
    }
    for (; k < num_cols; ++k) strip.floats[k * kStripRows + r] = Row::load1(data, col + k);
  }
}

struct Output {
  float* y;  // of the strip's first row and the first token
  int64_t stride, num_rows;

  F read(int64_t token) const { return load_up_to_16(y + token * stride, num_rows); }
  void write(int64_t token, F x) const {
    if (num_rows == kStripRows) return store(y + token * stride, x);
    float values[16];
    store(values, x);
    for (int64_t r = 0; r < num_rows; ++r) y[token * stride + r] = values[r];
  }
};

// Calls function<n>(token) over [0, count) with n = kMost, then with what is left.
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

// kTokens tokens times the floats of a strip, added to y unless `first`.
template <int kTokens>
void multiply_floats(const float* tile, int64_t num_cols, const float* x, int64_t x_stride, bool first, int64_t token,
                     const Output& out) {
  F sum[kTokens];
  for (int t = 0; t < kTokens; ++t) sum[t] = first ? zero() : out.read(token + t);
  const float* rows[kTokens];
  for (int t = 0; t < kTokens; ++t) rows[t] = x + t * x_stride;
  for (int64_t k = 0; k < num_cols; ++k) {
    const F weights = load(tile + k * kStripRows);
    for (int t = 0; t < kTokens; ++t) sum[t] = fma(weights, broadcast(rows[t][k]), sum[t]);
  }
  for (int t = 0; t < kTokens; ++t) out.write(token + t, sum[t]);
}

// The activations of the first token of a group, at the first column of a chunk.
struct CodesView {
  const int8_t *high, *low;
  const float *scales, *sums;
  const int32_t* offsets;
  int64_t cols;  // of the whole row: from one token to the next
};

// The sums of kTokens tokens over the blocks of a chunk. Where registers are few they live in memory, in the L1, and
// come up once a block.
template <int kStrips, int kTokens>
struct Totals {
  alignas(64) float sums[kStrips][kTokens][kStripRows];

  void keep_in_memory() {
    if constexpr (kTotalsInMemory) asm volatile("" : "+m"(sums));
  }
};

// kTokens tokens times the codes of kStrips strips, added to y unless `first`.
template <class Format, bool kExact, int kStrips, int kTokens>
void multiply_codes(const Strip* strips, int64_t num_blocks, const CodesView& x, bool first, int64_t token,
                    const Output* out) {
  Totals<kStrips, kTokens> total;
  for (int s = 0; s < kStrips; ++s) {
    for (int t = 0; t < kTokens; ++t) store(total.sums[s][t], first ? zero() : out[s].read(token + t));
  }
  const int64_t num_scales = x.cols / kBlock;
  constexpr bool kBoth = kExact && !kSumsHoldBothParts;  // the parts are summed side by side, else one after the other
  for (int64_t b = 0; b < num_blocks; ++b) {
    total.keep_in_memory();
    Sum high[kStrips][kTokens], low[kStrips][kTokens];
    for (int s = 0; s < kStrips; ++s) {
      for (int t = 0; t < kTokens; ++t) high[s][t] = low[s][t] = zero_sum();
    }
    const auto add_products = [&](const int8_t* codes, const int8_t* low_codes) __attribute__((always_inline)) {
      for (int64_t j = 0; j < 8; ++j) {
        TileWord words[kStrips];
        for (int s = 0; s < kStrips; ++s) words[s] = load_tile_word(strips[s].codes + (b * 8 + j) * 64);
        for (int t = 0; t < kTokens; ++t) {
          const int64_t at = t * x.cols + b * kBlock + 4 * j;
          const auto four = four_activations(codes + at);
          for (int s = 0; s < kStrips; ++s) high[s][t] = dot_tile<Format>(high[s][t], words[s], four);
          if constexpr (kBoth) {
            const auto low_four = four_activations(low_codes + at);
            for (int s = 0; s < kStrips; ++s) low[s][t] = dot_tile<Format>(low[s][t], words[s], low_four);
          }
        }
      }
    };
    add_products(x.high, x.low);
    if constexpr (kExact && !kBoth) {
      for (int s = 0; s < kStrips; ++s) {
        for (int t = 0; t < kTokens; ++t) high[s][t] = times_255(high[s][t]);
      }
      add_products(x.low, nullptr);
    }
    for (int s = 0; s < kStrips; ++s) {
      const F scale = load(strips[s].scales + b * kStripRows);
      for (int t = 0; t < kTokens; ++t) {
        const int64_t at = t * num_scales + b;
        const F sum = finish_sum<Format, kBoth>(high[s][t], low[s][t], x.offsets[at]);
        F value = fma(mul(scale, broadcast(x.scales[at])), sum, load(total.sums[s][t]));
        if constexpr (Format::kHasMin) {
          value = fma(load(strips[s].minima + b * kStripRows), broadcast(x.sums[at]), value);
        }
        store(total.sums[s][t], value);
      }
    }
  }
  for (int s = 0; s < kStrips; ++s) {
    for (int t = 0; t < kTokens; ++t) out[s].write(token + t, load(total.sums[s][t]));
  }
}

// What one tile is multiplied with, and where the products go: y of its first row and the first token.
struct TileWork {
  const Activations& x;
  int64_t token_begin, num_tokens;
  bool add;
  float* y;
  int64_t y_stride;
};

template <class Format, bool kExact, int kStrips>
void multiply_tile(const MatrixView& weight, int64_t row, int64_t num_rows, const TileWork& work, std::byte* scratch) {
  constexpr int64_t kChunkBlocks = kChunkCols / kBlock;
  const Strip strips[2] = {Strip(scratch, 0), Strip(scratch, 1)};
  const auto rows_of = [&](int64_t s) {
    return num_rows - s * kStripRows < kStripRows ? num_rows - s * kStripRows : kStripRows;
  };
  const Output out[2] = {{work.y, work.y_stride, rows_of(0)},
                         {work.y + kStripRows, work.y_stride, kStrips > 1 ? rows_of(1) : 0}};
  const int64_t blocks = weight.cols / kBlock;
  for (int64_t b = 0; b < blocks; b += kChunkBlocks) {
    const int64_t num_blocks = blocks - b < kChunkBlocks ? blocks - b : kChunkBlocks;
    for (int s = 0; s < kStrips; ++s) {
      weight.lane_group != 0
          ? unpack_lanes<Format>(weight, row + s * kStripRows, b, num_blocks, strips[s])
          : unpack_strip<Format>(weight, row + s * kStripRows, out[s].num_rows, b, num_blocks, strips[s]);
    }
    for_token_groups<kExact ? kTileTokens : kFastTileTokens>(work.num_tokens, [&]<int n>(int64_t t) {
      const int64_t token = work.token_begin + t, codes = token * weight.cols + b * kBlock, scales = token * blocks + b;
      const CodesView x{work.x.high + codes,     kExact ? work.x.low + codes : nullptr,
                        work.x.scales + scales,  work.x.block_sums + scales,
                        work.x.offsets + scales, weight.cols};
      multiply_codes<Format, kExact, kStrips, n>(strips, num_blocks, x, b == 0 && !work.add, t, out);
    });
  }
}

template <class Format>
void matmul_tile(const MatrixView& weight, int64_t row, int64_t num_rows, const TileWork& work, std::byte* scratch) {
  const bool exact = work.x.low != nullptr;
  if (kTileStrips == 2 && num_rows > kStripRows) {
    return exact ? multiply_tile<Format, true, kTileStrips>(weight, row, num_rows, work, scratch)
                 : multiply_tile<Format, false, kTileStrips>(weight, row, num_rows, work, scratch);
  }
  for (int64_t r = 0; r < num_rows; r += kStripRows) {
    const int64_t rows = num_rows - r < kStripRows ? num_rows - r : kStripRows;
    TileWork strip = work;
    strip.y += r;
    exact ? multiply_tile<Format, true, 1>(weight, row + r, rows, strip, scratch)
          : multiply_tile<Format, false, 1>(weight, row + r, rows, strip, scratch);
  }
}

template <class Row>
void matmul_tile_floats(const MatrixView& weight, int64_t row, int64_t num_rows, const TileWork& work,
                        std::byte* scratch) {
  const Strip strip(scratch, 0);
  const float* values = work.x.values + work.token_begin * weight.cols;
  for (int64_t r = 0; r < num_rows; r += kStripRows) {
    const Output out{work.y + r, work.y_stride, num_rows - r < kStripRows ? num_rows - r : kStripRows};
    for (int64_t col = 0; col < weight.cols; col += kChunkCols) {
      const int64_t num_cols = weight.cols - col < kChunkCols ? weight.cols - col : kChunkCols;
      transpose_strip<Row>(weight, row + r, out.num_rows, col, num_cols, strip);
      for_token_groups<kFloatTokens>(work.num_tokens, [&]<int n>(int64_t t) {
        multiply_floats<n>(strip.floats, num_cols, values + t * weight.cols + col, weight.cols, col == 0 && !work.add,
                           t, out);
      });
    }
  }
}

void matmul(const MatrixView& weight, int64_t row_begin, int64_t row_end, const Activations& x, int64_t token_begin,
            int64_t token_end, bool add, float* y, int64_t y_stride, std::byte* scratch) {
  for (int64_t row = row_begin; row < row_end; row += kTileRows) {
    const int64_t num_rows = row_end - row < kTileRows ? row_end - row : kTileRows;
    const TileWork work{x, token_begin, token_end - token_begin, add, y + row - row_begin, y_stride};
    switch (weight.dtype) {
      case DType::kF32:
        matmul_tile_floats<F32Row>(weight, row, num_rows, work, scratch);
        break;
      case DType::kF16:
        matmul_tile_floats<F16Row>(weight, row, num_rows, work, scratch);
        break;
      case DType::kBF16:
        matmul_tile_floats<BF16Row>(weight, row, num_rows, work, scratch);
        break;
      case DType::kQ4_0:
        matmul_tile<Q4_0>(weight, row, num_rows, work, scratch);
        break;
      case DType::kQ4_1:
        matmul_tile<Q4_1>(weight, row, num_rows, work, scratch);
        break;
      case DType::kQ8_0:
        matmul_tile<Q8_0>(weight, row, num_rows, work, scratch);
        break;
      default:
        __builtin_unreachable();
    }
  }
}

}  // namespace
}  // namespace potstill::kernels
