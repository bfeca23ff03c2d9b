// One token or a few times a block-quantized weight with rows in the lanes: some neighbouring rows' blocks are turned
// in registers so that a lane holds four codes of its own row; then activations are broadcast, and no sum crosses
// lanes. Turning costs less than the sums across lanes of a row-by-row product, and one conversion serves the scales of
// all the rows.
#pragma once

namespace potstill::kernels {
namespace {

constexpr int64_t kFileAhead = 4096;  // bytes, at least, rounded up to whole groups of rows

// What a block's products need of one token.
struct BlockActivations {
  const int8_t *high, *low;
  float scale, block_sum;
  int32_t offset;  // -8 * sum of the codes
};

// Where the blocks of some rows come from: the file's order, or a group of rows that lie side by side.
template <class Format>
struct FileRows {
  const std::byte* data;
  size_t stride;
  FileBlocks<Format> blocks(int64_t b) const { return {data + b * Format::kBytes, stride}; }
};
template <class Format>
struct LaneRows {
  LaneGroup<Format> group;
  int64_t row;  // of the group
  LaneBlocks<Format> blocks(int64_t b) const { return {group, b, row}; }
};

// kParts * kLaneRows rows times kTokens tokens, sums [kTokens, kParts]. With weight = d * (code - offset) + m a block
// adds
//   d * scale * Σ (code - offset) * x  +  m * (scale Σ x)
// to a row's lane, the inner sum in integers. `ahead`, if any, is what the next rows are read from, in as many bytes.
template <class Format, bool kExact, int kTokens, int kParts, class Rows>
inline void dot_lanes(const Rows& rows, int64_t num_blocks, const Activations& x, int64_t token, const std::byte* ahead,
                      Lanes* sums) {
  Lanes total[kTokens * kParts];
  for (Lanes& lanes : total) lanes = zero_lanes();
  constexpr int64_t kStepBytes = kParts * kLaneRows * Format::kBytes;
  for (int64_t b = 0; b < num_blocks; ++b) {
    if (ahead != nullptr) {  // into the L2: a prefetch into the L1 holds one of its few places for as long as it takes
      for (int64_t line = 0; line < kStepBytes; line += 64) __builtin_prefetch(ahead + b * kStepBytes + line, 0, 2);
    }
    BlockActivations block[kTokens];
    for (int t = 0; t < kTokens; ++t) {
      const int64_t codes = (token + t) * x.cols + b * kBlock, at = (token + t) * num_blocks + b;
      block[t] = {x.high + codes, kExact ? x.low + codes : nullptr, x.scales[at],
                  Format::kHasMin ? x.block_sums[at] : 0.0f, x.offsets[at]};
    }
    add_products<Format, kExact, kTokens, kParts>(rows.blocks(b), block, total);
  }
  for (int i = 0; i < kTokens * kParts; ++i) sums[i] = total[i];
}

// Where the results go: y [kTokens], of a part's first row.
struct LaneOutput {
  float* y;
  int64_t stride;
  bool add;

  void write(int64_t t, int64_t row, Lanes sums) const {
    float* out = y + t * stride + row;
    store_lanes(out, add ? add_lanes(load_lanes(out), sums) : sums);
  }
  void write_first(int64_t t, int64_t row, Lanes sums) const {
    float& out = y[t * stride + row];
    out = add ? out + first_lane(sums) : first_lane(sums);
  }
};

// Rows [row, row + count) in the file's order, count <= kLaneRows.
template <class Format, bool kExact, int kTokens>
void matvec_file_rows(const MatrixView& weight, int64_t row, int64_t count, const Activations& x, int64_t token,
                      const LaneOutput& out) {
  const int64_t num_blocks = weight.cols / kBlock;
  Lanes sums[kTokens];
  if (count == kLaneRows) {
    const auto group_bytes = static_cast<int64_t>(kLaneRows * weight.row_bytes);
    const int64_t distance = (kFileAhead + group_bytes - 1) / group_bytes * group_bytes;
    dot_lanes<Format, kExact, kTokens, 1>(FileRows<Format>{weight.row(row), weight.row_bytes}, num_blocks, x, token,
                                          weight.row(row) + distance, sums);
    for (int t = 0; t < kTokens; ++t) out.write(t, 0, sums[t]);
    return;
  }
  for (int64_t r = 0; r < count; ++r) {  // one row in all the lanes: the same arithmetic
    dot_lanes<Format, kExact, kTokens, 1>(FileRows<Format>{weight.row(row + r), 0}, num_blocks, x, token, nullptr,
                                          sums);
    for (int t = 0; t < kTokens; ++t) out.write_first(t, r, sums[t]);
  }
}

// kParts * kLaneRows rows of a group.
template <class Format, bool kExact, int kTokens, int kParts>
void matvec_lane_rows(const MatrixView& weight, int64_t row, const Activations& x, int64_t token,
                      const LaneOutput& out) {
  constexpr int64_t kRows = kParts * kLaneRows;
  const int64_t num_blocks = weight.cols / kBlock, first = row % weight.lane_group;
  const std::byte* data = weight.row(row - first);
  Lanes sums[kTokens * kParts];
  const auto dot = [&](const LaneRows<Format>& rows, const std::byte* ahead) {
    dot_lanes<Format, kExact, kTokens, kParts>(rows, num_blocks, x, token, ahead, sums);
  };
  if (weight.lane_group == kRows) {  // a whole group is one stretch of memory, its size a constant for the compiler
    constexpr int64_t kAhead = kLanesAhead<Format, kExact>;
    dot({{data, kRows}, 0}, kAhead == 0 ? nullptr : data + kAhead);
  } else {  // passes over parts of a group fetch the next one between them
    const auto distance = static_cast<size_t>(weight.lane_group + first) * weight.row_bytes;
    dot({{data, weight.lane_group}, first}, data + distance);
  }
  for (int i = 0; i < kTokens * kParts; ++i) out.write(i / kParts, i % kParts * kLaneRows, sums[i]);
}

// A group of rows stays in the cache while all the tokens pass.
template <class Format, bool kExact>
void matvec_codes(const MatrixView& weight, int64_t row_begin, int64_t row_end, const Activations& x,
                  int64_t token_begin, int64_t token_end, bool add, float* y, int64_t y_stride) {
  int64_t row = row_begin;
  // visit.operator()<kTokens>(first token, output) for all the tokens
  const auto for_tokens = [&](const auto& visit) {
    const auto some = [&]<int kTokens>(int64_t token) {
      visit.template operator()<kTokens>(
          token, LaneOutput{y + (token - token_begin) * y_stride + row - row_begin, y_stride, add});
    };
    int64_t token = token_begin;
    for (; token + kMatvecTokens <= token_end; token += kMatvecTokens) some.template operator()<kMatvecTokens>(token);
    for (; token + 2 <= token_end; token += 2) some.template operator()<2>(token);
    if (token < token_end) some.template operator()<1>(token);
  };
  const auto lane_rows = [&]<int kParts>() {
    for_tokens([&]<int kTokens>(int64_t token, const LaneOutput& out) {
      matvec_lane_rows<Format, kExact, kTokens, kParts>(weight, row, x, token, out);
    });
    row += kParts * kLaneRows;
  };
  while (row < row_end) {
    if (weight.lane_group == 0) {
      const int64_t count = row_end - row < kLaneRows ? row_end - row : kLaneRows;
      for_tokens([&]<int kTokens>(int64_t token, const LaneOutput& out) {
        matvec_file_rows<Format, kExact, kTokens>(weight, row, count, x, token, out);
      });
      row += count;
      continue;
    }
    // Several tokens leave registers for half of the parts.
    const int64_t group_left = weight.lane_group - row % weight.lane_group,
                  left = row_end - row < group_left ? row_end - row : group_left;
    if (token_end - token_begin == 1 && left >= kLaneParts * kLaneRows) {
      lane_rows.template operator()<kLaneParts>();
    } else if (left >= kLaneParts / 2 * kLaneRows) {  // NOLINT(bugprone-branch-clone): AVX2's half is one
      lane_rows.template operator()<kLaneParts / 2>();
    } else {
      lane_rows.template operator()<1>();
    }
  }
}

}  // namespace
}  // namespace potstill::kernels
