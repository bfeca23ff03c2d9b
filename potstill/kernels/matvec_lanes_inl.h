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

// Where the blocks of kLaneRows rows come from: the file's order, or a group that lies in lanes.
template <class Format>
struct FileRows {
  const std::byte* data;
  size_t stride;
  RowBlocks<Format> blocks(int64_t b) const { return {data + b * Format::kBytes, stride}; }
};
template <class Format>
struct LaneRows {
  LaneGroup<Format> group;
  int part;  // of a group, which has more rows than there are lanes
  RowBlocks<Format> blocks(int64_t b) const { return {group, b, part}; }
};

// kLaneRows rows times kTokens tokens, from block 0 on. With weight = d * (code - offset) + m a block adds
//   d * scale * Σ (code - offset) * x  +  m * (scale Σ x)
// to a row's lane, the inner sum in integers.
template <class Format, bool kExact, int kTokens, class Rows>
void dot_lanes(const Rows& rows, int64_t num_blocks, const Activations& x, int64_t token, const std::byte* ahead,
               Lanes* sums) {
  Lanes total[kTokens];
  const int8_t *high[kTokens], *low[kTokens];
  for (int t = 0; t < kTokens; ++t) {
    total[t] = zero_lanes();
    high[t] = x.high + (token + t) * x.cols;
    low[t] = kExact ? x.low + (token + t) * x.cols : nullptr;
  }
  constexpr int64_t kStepBytes = kLaneRows * Format::kBytes;
  for (int64_t b = 0; b < num_blocks; ++b) {
    // The hardware's prefetchers stop at the end of a page; this reaches past it.
    for (int64_t line = 0; line < kStepBytes; line += 64) __builtin_prefetch(ahead + b * kStepBytes + line);
    const RowBlocks<Format> blocks = rows.blocks(b);
    BlockActivations block[kTokens];
    for (int t = 0; t < kTokens; ++t) {
      const int64_t at = (token + t) * num_blocks + b;
      block[t] = {high[t] + b * kBlock, kExact ? low[t] + b * kBlock : nullptr, x.scales[at],
                  Format::kHasMin ? x.block_sums[at] : 0.0f, x.offsets[at]};
    }
    blocks.template add_products<kExact, kTokens>(block, total);
  }
  for (int t = 0; t < kTokens; ++t) sums[t] = total[t];
}

// Rows [row, row + count), count <= kLaneRows, times kTokens tokens.
template <class Format, bool kExact, int kTokens>
void matvec_group(const MatrixView& weight, int64_t row, int64_t count, const Activations& x, int64_t token, bool add,
                  float* y, int64_t y_stride) {
  const int64_t num_blocks = weight.cols / kBlock;
  const size_t group_bytes = kLaneRows * weight.row_bytes;
  const size_t distance = (kPrefetchBytes + group_bytes - 1) / group_bytes * group_bytes;
  Lanes sums[kTokens];
  if (count == kLaneRows) {
    if (weight.order == RowOrder::kLanes) {
      const int64_t part = row % LaneGroup<Format>::kRows / kLaneRows;
      const std::byte* group = weight.row(row - part * kLaneRows);
      dot_lanes<Format, kExact, kTokens>(LaneRows<Format>{{group, num_blocks}, static_cast<int>(part)}, num_blocks, x,
                                         token, group + part * static_cast<int64_t>(group_bytes) + distance, sums);
    } else {
      dot_lanes<Format, kExact, kTokens>(FileRows<Format>{weight.row(row), weight.row_bytes}, num_blocks, x, token,
                                         weight.row(row) + distance, sums);
    }
    for (int t = 0; t < kTokens; ++t) {
      float* out = y + t * y_stride;
      store_lanes(out, add ? add_lanes(load_lanes(out), sums[t]) : sums[t]);
    }
    return;
  }
  for (int64_t r = 0; r < count; ++r) {  // one row in all the lanes: the same arithmetic
    dot_lanes<Format, kExact, kTokens>(FileRows<Format>{weight.row(row + r), 0}, num_blocks, x, token,
                                       weight.row(row + r), sums);
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
  for (int64_t row = row_begin; row < row_end; row += kLaneRows) {
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
