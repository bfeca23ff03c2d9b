// One token or a few times a block-quantized weight with rows in the lanes: some neighbouring rows' blocks are turned
// in registers so that a lane holds four codes of its own row; then activations are broadcast, and no sum crosses
// lanes. Turning costs less than the sums across lanes of a row-by-row product, and one conversion serves the scales of
// all the rows.
#pragma once

namespace potstill::kernels {
namespace {

constexpr bool kReadsLanes = true;
constexpr size_t kPrefetchBytes = 4096;

// What a block's products need of one token.
struct BlockActivations {
  const int8_t *high, *low;
  float scale, block_sum;
  int32_t offset;  // -8 * sum of the codes
};

// Where the blocks of kParts * kLaneRows rows come from: the file's order, or a group that lies in lanes.
// The hardware's prefetchers stop at the end of a page; prefetch() reaches past it.
template <class Format>
struct FileRows {
  static constexpr int kParts = 1;
  const std::byte* data;
  size_t stride;
  const std::byte* ahead;  // as many rows, some rows further on
  RowBlocks<Format> blocks(int64_t b, int) const { return {data + b * Format::kBytes, stride}; }
  void prefetch(int64_t b) const {
    constexpr int64_t kStepBytes = kLaneRows * Format::kBytes;
    for (int64_t line = 0; line < kStepBytes; line += 64) __builtin_prefetch(ahead + b * kStepBytes + line);
  }
};
template <class Format, int kPartsAtOnce>
struct LaneRows {
  static constexpr int kParts = kPartsAtOnce;
  LaneGroup<Format> group;
  int first_part;  // a group may have more rows than there are lanes
  RowBlocks<Format> blocks(int64_t b, int part) const { return {group, b, first_part + part}; }
  // Codes that are as far ahead at every block; the next group's scales are passed on the way.
  void prefetch(int64_t b) const {
    if (first_part > 0) return;  // the first part brings the lines that the others find
    constexpr int64_t kStepBytes = LaneGroup<Format>::kRows * Format::kBytes;
    const std::byte* ahead = group.codes + kPrefetchBytes + b * kStepBytes;
    for (int64_t line = 0; line < kStepBytes; line += 64) __builtin_prefetch(ahead + line);
  }
};

// Rows::kParts * kLaneRows rows times kTokens tokens, from block 0 on: sums [kParts, kTokens]. With
// weight = d * (code - offset) + m a block adds
//   d * scale * Σ (code - offset) * x  +  m * (scale Σ x)
// to a row's lane, the inner sum in integers.
template <class Format, bool kExact, int kTokens, class Rows>
void dot_lanes(const Rows& rows, int64_t num_blocks, const Activations& x, int64_t token, Lanes* sums) {
  Lanes total[Rows::kParts][kTokens];
  const int8_t *high[kTokens], *low[kTokens];
  for (int t = 0; t < kTokens; ++t) {
    for (int part = 0; part < Rows::kParts; ++part) total[part][t] = zero_lanes();
    high[t] = x.high + (token + t) * x.cols;
    low[t] = kExact ? x.low + (token + t) * x.cols : nullptr;
  }
  for (int64_t b = 0; b < num_blocks; ++b) {
    rows.prefetch(b);
    BlockActivations block[kTokens];
    for (int t = 0; t < kTokens; ++t) {
      const int64_t at = (token + t) * num_blocks + b;
      block[t] = {high[t] + b * kBlock, kExact ? low[t] + b * kBlock : nullptr, x.scales[at],
                  Format::kHasMin ? x.block_sums[at] : 0.0f, x.offsets[at]};
    }
    for (int part = 0; part < Rows::kParts; ++part) {
      const RowBlocks<Format> blocks = rows.blocks(b, part);
      blocks.template add_products<kExact, kTokens>(block, total[part]);
    }
  }
  for (int part = 0; part < Rows::kParts; ++part) {
    for (int t = 0; t < kTokens; ++t) sums[part * kTokens + t] = total[part][t];
  }
}

template <int kTokens>
void store_sums(const Lanes* sums, bool add, float* y, int64_t y_stride) {
  for (int t = 0; t < kTokens; ++t) {
    float* out = y + t * y_stride;
    store_lanes(out, add ? add_lanes(load_lanes(out), sums[t]) : sums[t]);
  }
}

// All the parts of a group from one reading of its lines.
template <class Format, bool kExact, int kParts>
void matvec_whole_group(const MatrixView& weight, int64_t row, const Activations& x, int64_t token, bool add,
                        float* y) {
  const int64_t num_blocks = weight.cols / kBlock;
  const LaneRows<Format, kParts> rows{{weight.row(row), num_blocks}, 0};
  Lanes sums[kParts];
  dot_lanes<Format, kExact, 1>(rows, num_blocks, x, token, sums);
  for (int part = 0; part < kParts; ++part) store_sums<1>(sums + part, add, y + part * kLaneRows, 0);
}

// Rows [row, row + count), count <= kLaneRows, times kTokens tokens.
template <class Format, bool kExact, int kTokens>
void matvec_group(const MatrixView& weight, int64_t row, int64_t count, const Activations& x, int64_t token, bool add,
                  float* y, int64_t y_stride) {
  const int64_t num_blocks = weight.cols / kBlock;
  Lanes sums[kTokens];
  if (count == kLaneRows) {
    if (weight.order == RowOrder::kLanes) {
      const int64_t part = row % LaneGroup<Format>::kRows / kLaneRows;
      const LaneRows<Format, 1> rows{{weight.row(row - part * kLaneRows), num_blocks}, static_cast<int>(part)};
      dot_lanes<Format, kExact, kTokens>(rows, num_blocks, x, token, sums);
    } else {
      const size_t bytes = kLaneRows * weight.row_bytes, distance = (kPrefetchBytes + bytes - 1) / bytes * bytes;
      const std::byte* data = weight.row(row);
      dot_lanes<Format, kExact, kTokens>(FileRows<Format>{data, weight.row_bytes, data + distance}, num_blocks, x,
                                         token, sums);
    }
    store_sums<kTokens>(sums, add, y, y_stride);
    return;
  }
  for (int64_t r = 0; r < count; ++r) {  // one row in all the lanes: the same arithmetic
    const std::byte* data = weight.row(row + r);
    dot_lanes<Format, kExact, kTokens>(FileRows<Format>{data, 0, data}, num_blocks, x, token, sums);
    for (int t = 0; t < kTokens; ++t) {
      float& out = y[t * y_stride + r];
      out = add ? out + first_lane(sums[t]) : first_lane(sums[t]);
    }
  }
}

// A group of rows stays in the L1 while all the tokens pass.
template <class Format, bool kExact>
void matvec_codes(const MatrixView& weight, int64_t row_begin, int64_t row_end, const Activations& x,
                  int64_t token_begin, int64_t token_end, bool add, float* y, int64_t y_stride) {
  constexpr int kParts = LaneGroup<Format>::kRows / kLaneRows;
  for (int64_t row = row_begin; row < row_end; row += kLaneRows) {
    if (kParts > 1 && weight.order == RowOrder::kLanes && token_end - token_begin == 1 &&
        row % LaneGroup<Format>::kRows == 0 && row_end - row >= LaneGroup<Format>::kRows) {
      matvec_whole_group<Format, kExact, kParts>(weight, row, x, token_begin, add, y + row - row_begin);
      row += (kParts - 1) * kLaneRows;
      continue;
    }
    const int64_t count = row_end - row < kLaneRows ? row_end - row : kLaneRows;
    int64_t token = token_begin;
    const auto tokens = [&]<int kTokens>() {
      matvec_group<Format, kExact, kTokens>(weight, row, count, x, token, add,
                                            y + (token - token_begin) * y_stride + row - row_begin, y_stride);
      token += kTokens;
    };
    while (token + kMatvecTokens <= token_end) tokens.template operator()<kMatvecTokens>();
    while (token + 2 <= token_end) tokens.template operator()<2>();
    if (token < token_end) tokens.template operator()<1>();
  }
}

}  // namespace
}  // namespace potstill::kernels
