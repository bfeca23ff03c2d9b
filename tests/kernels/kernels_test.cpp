#include "potstill/kernels/kernels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "tests/kernels/random_weight.h"

#include "potstill/base/error.h"
#include "potstill/kernels/kernels_ref.h"
#include "potstill/kernels/lane_order.h"

namespace potstill::kernels {
namespace {

constexpr DType kDTypes[] = {DType::kF32, DType::kF16, DType::kBF16, DType::kQ4_0, DType::kQ4_1, DType::kQ8_0};

class KernelTest : public testing::TestWithParam<const KernelTable*> {
 protected:
  const KernelTable& table() const { return *GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(EveryIsa, KernelTest, testing::ValuesIn(runnable_kernels()),
                         [](const auto& instance) { return std::string(instance.param->name); });

// Activations that own their parts.
struct OwnedActivations {
  std::vector<float> values, sums, scales;
  std::vector<int8_t> high, low;
  std::vector<int32_t> offsets;
  Activations view;

  OwnedActivations(const KernelTable& table, int64_t num_tokens, int64_t cols, bool fast, uint64_t seed)
      : values(normals(static_cast<size_t>(num_tokens * cols), seed)) {
    for (size_t i = 0; i < values.size(); i += 97) values[i] *= 300;  // outliers, as real activations have
    view = {.num_tokens = num_tokens, .cols = cols, .values = values.data()};
    if (cols % kBlock != 0) return;
    sums.resize(values.size() / kBlock);
    scales.resize(sums.size());
    offsets.resize(sums.size());
    high.resize(values.size());
    if (!fast) low.resize(values.size());
    table.quantize_row(values.data(), num_tokens * cols, high.data(), fast ? nullptr : low.data(), scales.data(),
                       sums.data(), offsets.data());
    view.high = high.data();
    view.low = fast ? nullptr : low.data();
    view.scales = scales.data();
    view.block_sums = sums.data();
    view.offsets = offsets.data();
  }
};

// Any order of a float32 sum of n products is within about n u Σ|w x| of the exact one (Higham, section 3.1), u = 2⁻²⁴;
// codes enter as d * code + m, whose parts may be 20 times the value: that factor is in the bound.
double tolerance(const MatrixView& weight, int64_t row, const Activations& x, int64_t token) {
  const auto w = dequantize_row_ref(weight, row);
  const auto v = activations_ref(x, token, false);
  double sum = 0, largest = 0;
  for (const double value : w) largest = std::max(largest, std::abs(value));
  for (size_t k = 0; k < w.size(); ++k) sum += largest * std::abs(v[k]);
  return 20 * 0x1p-24 * sum + 1e-7;
}

struct Scratch {
  Scratch() : memory(static_cast<std::byte*>(std::aligned_alloc(64, (matmul_scratch_bytes() + 63) / 64 * 64))) {}
  ~Scratch() { std::free(memory); }
  std::byte* data() const { return memory; }
  std::byte* memory;
};

std::vector<int64_t> widths(DType dtype) {
  if (is_block_quantized(dtype)) return {32, 64, 96, 288, 512, 544, 576, 1088};
  return {1, 7, 15, 16, 17, 31, 63, 64, 65, 100, 129, 576, 1025};
}

TEST_P(KernelTest, MatvecEqualsItsDefinitionAtEveryWidthAndNumberOfTokens) {
  for (const DType dtype : kDTypes) {
    for (const bool fast : {false, true}) {
      for (const int64_t cols : widths(dtype)) {
        for (const int64_t num_tokens : {1, 2, 3, 7}) {
          const auto weight =
              random_weight(dtype, 40, cols, /*seed=*/1, /*misalign=*/is_block_quantized(dtype) ? 2 : 0);
          const OwnedActivations x(table(), num_tokens, cols, fast, /*seed=*/2);
          std::vector<float> y(static_cast<size_t>(38 * num_tokens), 3.0f), sums(y);
          table().matvec(weight.view, 1, 39, x.view, 0, num_tokens, false, y.data(), 38);
          table().matvec(weight.view, 1, 39, x.view, 0, num_tokens, true, sums.data(), 38);
          for (int64_t t = 0; t < num_tokens; ++t) {
            for (int64_t r = 0; r < 38; ++r) {
              const auto at = static_cast<size_t>(t * 38 + r);
              ASSERT_NEAR(y[at], matvec_ref(weight.view, r + 1, x.view, t), tolerance(weight.view, r + 1, x.view, t))
                  << dtype_name(dtype) << " [40, " << cols << "] row " << r + 1 << " token " << t << " of "
                  << num_tokens << (fast ? " fast" : " exact");
              EXPECT_EQ(sums[at], 3.0f + y[at]);
            }
          }
        }
      }
    }
  }
}

// Sequences may come together and rows go to threads: not one bit may change.
TEST_P(KernelTest, MatvecDoesNotDependOnHowTokensAndRowsAreCut) {
  for (const DType dtype : kDTypes) {
    const auto weight = random_weight(dtype, 37, 288, 5);
    const OwnedActivations x(table(), 7, 288, false, 6);
    std::vector<float> whole(7 * 37), pieces(7 * 37);
    table().matvec(weight.view, 0, 37, x.view, 0, 7, false, whole.data(), 37);
    for (const auto& [row, end] : {std::pair<int64_t, int64_t>{0, 3}, {3, 20}, {20, 37}}) {
      for (int64_t t = 0; t < 7; ++t) {
        table().matvec(weight.view, row, end, x.view, t, t + 1, false, pieces.data() + t * 37 + row, 0);
      }
    }
    EXPECT_EQ(whole, pieces) << dtype_name(dtype);
  }
}

// Every function that reads weights gives the same bits whichever order they lie in. Groups are of every size that the
// instruction set takes; a thread's rows end in the middle of one.
TEST_P(KernelTest, RowsSideBySideChangeNoBit) {
  if (table().lane_group == 0) GTEST_SKIP() << table().name << " reads the file's order alone";
  constexpr int64_t kTokens = 7;
  const Scratch scratch;
  for (const auto& [rows, group] : {std::pair<int64_t, int64_t>{80, 16}, {96, 32}, {192, 64}}) {
    for (const DType dtype : {DType::kQ4_0, DType::kQ4_1, DType::kQ8_0}) {
      for (const int64_t cols : widths(dtype)) {
        const auto weight = random_weight(dtype, rows, cols, /*seed=*/1, /*misalign=*/2);
        if (group > table().lane_group) continue;
        ASSERT_EQ(lane_group_of(weight.view, table().lane_group), group);
        std::vector<std::byte> bytes(static_cast<size_t>(rows) * weight.view.row_bytes);
        put_into_lanes(weight.view, group, 0, 2, bytes.data());
        put_into_lanes(weight.view, group, 2, rows / group,
                       bytes.data() + 2 * static_cast<size_t>(group) * weight.view.row_bytes);
        MatrixView lanes = weight.view;
        lanes.data = bytes.data();
        lanes.lane_group = group;
        EXPECT_EQ(lane_group_of(lanes, table().lane_group), 0);  // it is in lanes already
        std::vector<float> row(static_cast<size_t>(cols)), lane_row(row);
        for (int64_t r = 0; r < rows; ++r) {
          table().dequantize_row(weight.view, r, row.data());
          table().dequantize_row(lanes, r, lane_row.data());
          ASSERT_EQ(row, lane_row) << dtype_name(dtype) << " row " << r;
        }
        for (const bool fast : {false, true}) {
          for (const int64_t tokens : {int64_t{1}, int64_t{2}, kTokens}) {
            const OwnedActivations x(table(), tokens, cols, fast, /*seed=*/2);
            std::vector<float> y(static_cast<size_t>(rows * tokens), 1.0f), lane_y(y);
            const auto same = [&](const char* product) {
              EXPECT_EQ(y, lane_y) << product << " " << dtype_name(dtype) << " [" << rows << ", " << cols << "], "
                                   << tokens << " tokens, groups of " << group << (fast ? ", fast" : "");
            };
            table().matvec(weight.view, 0, rows, x.view, 0, tokens, true, y.data(), rows);
            table().matvec(lanes, 0, 32, x.view, 0, tokens, true, lane_y.data(), rows);
            table().matvec(lanes, 32, rows, x.view, 0, tokens, true, lane_y.data() + 32, rows);
            same("matvec");
            table().matmul(weight.view, 0, rows, x.view, 0, tokens, false, y.data(), rows, scratch.data());
            table().matmul(lanes, 0, rows, x.view, 0, tokens, false, lane_y.data(), rows, scratch.data());
            same("matmul");
          }
        }
      }
    }
  }
}

TEST(LaneOrder, GroupsAreTheLargestThatLeaveNoRow) {
  const auto group = [](DType dtype, int64_t rows) {
    return lane_group_of(random_weight(dtype, rows, 32, /*seed=*/1).view, /*most=*/64);
  };
  EXPECT_EQ(group(DType::kQ4_0, 128), 64);
  EXPECT_EQ(group(DType::kQ8_0, 96), 32);
  EXPECT_EQ(group(DType::kQ4_1, 16), 16);
  EXPECT_EQ(group(DType::kQ4_0, 72), 0);
  EXPECT_EQ(group(DType::kF16, 64), 0);
}

// The distance to the product with the floats themselves: what exact mode promises.
TEST_P(KernelTest, ExactProductsAreThoseOfTheFloatsWithinTheCodesRounding) {
  for (const DType dtype : {DType::kQ4_0, DType::kQ4_1, DType::kQ8_0}) {
    const int64_t cols = 1088;
    const auto weight = random_weight(dtype, 4, cols, 1);
    const OwnedActivations x(table(), 1, cols, false, 2);
    float y[4];
    table().matvec(weight.view, 0, 4, x.view, 0, 1, false, y, 4);
    for (int64_t r = 0; r < 4; ++r) {
      const auto w = dequantize_row_ref(weight.view, r);
      double exact = 0, rounding = 0;  // half a step of the block's scale each
      for (size_t k = 0; k < w.size(); ++k) {
        exact += w[k] * x.values[k];
        rounding += std::abs(w[k]) * x.scales[k / kBlock] / 2;
      }
      EXPECT_NEAR(y[r], exact, rounding + tolerance(weight.view, r, x.view, 0)) << dtype_name(dtype);
    }
  }
}

TEST_P(KernelTest, MatmulEqualsItsDefinitionAtEveryNumberOfTokensAndRows) {
  for (const DType dtype : kDTypes) {
    for (const bool fast : {false, true}) {
      for (const int64_t tokens : {1, 2, 3, 5, 7, 8, 11, 12, 13, 27}) {
        const int64_t rows = tokens % 2 == 0 ? 83 : 16;
        const int64_t cols = is_block_quantized(dtype) ? (tokens == 5 ? 1088 : 96) : (tokens == 5 ? 1030 : 77);
        const auto weight = random_weight(dtype, rows, cols, /*seed=*/3, /*misalign=*/0);
        const OwnedActivations x(table(), tokens + 1, cols, fast, /*seed=*/4);
        std::vector<float> y(static_cast<size_t>(tokens * (rows + 1)), -777.0f);
        const Scratch scratch;
        table().matmul(weight.view, 0, rows, x.view, 1, tokens + 1, false, y.data(), rows + 1, scratch.data());
        for (int64_t t = 0; t < tokens; ++t) {
          for (int64_t r = 0; r < rows; ++r) {
            ASSERT_NEAR(y[static_cast<size_t>(t * (rows + 1) + r)], matvec_ref(weight.view, r, x.view, t + 1),
                        tolerance(weight.view, r, x.view, t + 1))
                << dtype_name(dtype) << " [" << rows << ", " << cols << "] row " << r << " token " << t << " of "
                << tokens << (fast ? " fast" : " exact");
          }
          EXPECT_EQ(y[static_cast<size_t>(t * (rows + 1) + rows)], -777.0f) << "wrote past its rows";
        }
        auto sums = y;
        table().matmul(weight.view, 0, rows, x.view, 1, tokens + 1, true, sums.data(), rows + 1, scratch.data());
        for (size_t i = 0; i < y.size(); ++i)
          ASSERT_NEAR(sums[i], y[i] == -777.0f ? y[i] : 2 * y[i], 1e-3 + 1e-5 * std::abs(y[i]));
      }
    }
  }
}

// Prompts may be cut into chunks and rows into threads: not one bit may change.
TEST_P(KernelTest, MatmulDoesNotDependOnHowTokensAndRowsAreCut) {
  const int64_t rows = 104, cols = 1120, tokens = 29;
  for (const DType dtype : kDTypes) {
    for (const bool fast : {false, true}) {
      const auto weight = random_weight(dtype, rows, cols, 5);
      const OwnedActivations x(table(), tokens, cols, fast, 6);
      const Scratch scratch;
      std::vector<float> whole(rows * tokens), pieces(rows * tokens);
      table().matmul(weight.view, 0, rows, x.view, 0, tokens, false, whole.data(), rows, scratch.data());
      for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 9}, {9, 10}, {10, 29}}) {
        for (int64_t row = 0; row < rows; row += kTileRows) {
          table().matmul(weight.view, row, std::min(rows, row + kTileRows), x.view, begin, end, false,
                         pieces.data() + begin * rows + row, rows, scratch.data());
        }
      }
      EXPECT_EQ(whole, pieces) << dtype_name(dtype) << (fast ? " fast" : " exact");
    }
  }
}

TEST_P(KernelTest, DequantizedRowIsTheFormatsValueToTheBit) {
  for (const DType dtype : kDTypes) {
    for (const int64_t cols : widths(dtype)) {
      const auto weight = random_weight(dtype, 2, cols, 7);
      std::vector<float> out(static_cast<size_t>(cols));
      table().dequantize_row(weight.view, 1, out.data());
      const auto expected = dequantize_row_ref(weight.view, 1);
      for (size_t k = 0; k < out.size(); ++k) {
        EXPECT_NEAR(out[k], expected[k], 0x1p-23 * (std::abs(expected[k]) + 1))
            << dtype_name(dtype) << " element " << k;
      }
    }
  }
}

TEST_P(KernelTest, QuantizedActivationsEqualTheirDefinitionToTheBit) {
  constexpr size_t kBlocks = 9;
  auto x = normals(kBlock * kBlocks, 8);
  for (size_t i = 0; i < 32; ++i) x[i] = 0;  // a block of zeros has scale 0 and codes 0
  x[40] = 1e4f;
  for (const CodeWidth width : {CodeWidth::kExact, CodeWidth::kFast}) {
    const bool exact = width == CodeWidth::kExact;
    std::vector<int8_t> high(x.size()), low(x.size());
    std::vector<float> scales(kBlocks), sums(kBlocks), expected_scales(kBlocks);
    std::vector<int> codes(x.size()), expected(x.size());
    std::vector<int32_t> offsets(kBlocks);
    const auto cols = static_cast<int64_t>(x.size());
    table().quantize_row(x.data(), cols, high.data(), exact ? low.data() : nullptr, scales.data(), sums.data(),
                         offsets.data());
    for (size_t k = 0; k < x.size(); ++k) {
      codes[k] = exact ? 255 * high[k] + low[k] : high[k];
    }
    quantize_row_ref(x, width, expected, expected_scales);
    EXPECT_EQ(codes, expected);
    EXPECT_EQ(scales, expected_scales);
    for (size_t b = 0; b < kBlocks; ++b) {
      int sum = 0;
      for (size_t j = 0; j < 32; ++j) sum += codes[b * 32 + j];
      EXPECT_FLOAT_EQ(sums[b], scales[b] * static_cast<float>(sum));
      EXPECT_EQ(offsets[b], -8 * sum);
    }
  }
}

TEST_P(KernelTest, RmsNormEqualsItsDefinition) {
  for (const size_t n : {1, 5, 15, 16, 17, 64, 100, 576}) {
    const auto x = normals(n, 9), weight = normals(n, 10);
    std::vector<float> y(n);
    table().rms_norm(x.data(), weight.data(), static_cast<int64_t>(n), 1e-5f, y.data());
    const auto expected = rms_norm_ref(x, weight, 1e-5f);
    for (size_t i = 0; i < n; ++i) EXPECT_NEAR(y[i], expected[i], 1e-6 * (1 + std::abs(expected[i]))) << n << " " << i;
  }
}

TEST_P(KernelTest, SwigluEqualsItsDefinitionIntoBothTails) {
  std::vector<float> gate, up;
  for (float g = -100; g <= 100; g += 0.37f) {
    gate.push_back(g);
    up.push_back(1.0f + g * 0.01f);
  }
  auto y = gate;
  table().swiglu(y.data(), up.data(), static_cast<int64_t>(y.size()));
  for (size_t i = 0; i < y.size(); ++i) {
    const double expected = swiglu_ref(gate[i], up[i]);
    EXPECT_NEAR(y[i], expected, 1e-6 * std::abs(expected) + 1e-35) << "gate " << gate[i];
  }
}

TEST_P(KernelTest, SoftmaxEqualsItsDefinition) {
  for (const size_t n : {1, 2, 15, 16, 17, 33, 1000}) {
    auto x = normals(n, 11);
    for (float& v : x) v *= 10;
    const auto expected = softmax_ref(std::vector<double>(x.begin(), x.end()));
    table().softmax(x.data(), static_cast<int64_t>(n));
    // Differences from the maximum reach 70: rounding such an exponent to float moves the result by 70 · 2⁻²⁴ of
    // itself.
    for (size_t i = 0; i < n; ++i) EXPECT_NEAR(x[i], expected[i], 6e-6 * expected[i] + 1e-37) << n << " " << i;
  }
}

TEST_P(KernelTest, AddAddsEveryElement) {
  for (const size_t n : {1, 16, 37}) {
    auto x = normals(n, 12);
    const auto before = x, y = normals(n, 13);
    table().add(x.data(), y.data(), static_cast<int64_t>(n));
    for (size_t i = 0; i < n; ++i) EXPECT_EQ(x[i], before[i] + y[i]);
  }
}

// A cache filled through store_key and store_value.
struct FilledCache {
  KvLayout layout;
  std::vector<std::byte> keys, values;

  FilledCache(const KernelTable& table, KvType type, int64_t head_dim, int64_t positions)
      : layout(kv_layout(type, head_dim)) {
    // What was never written may be anything: NaN in both types.
    const auto bytes = static_cast<size_t>((positions + 15) / 16 * layout.group_bytes());
    keys.assign(bytes, std::byte{0x7f});
    values.assign(bytes, std::byte{0x7f});
    for (int64_t p = 0; p < positions; ++p) {
      const auto key = normals(static_cast<size_t>(head_dim), 100 + static_cast<uint64_t>(p));
      const auto value = normals(static_cast<size_t>(head_dim), 2000 + static_cast<uint64_t>(p));
      table.store_key(layout, key.data(), p, keys.data());
      table.store_value(layout, value.data(), p, values.data());
    }
  }
};

TEST_P(KernelTest, CachedKeysAndValuesAreWithinTheirTypesRounding) {
  for (const int64_t head_dim : {8, 24, 64, 80}) {
    for (const KvType type : {KvType::kHalf, KvType::kByte}) {
      const FilledCache cache(table(), type, head_dim, 37);
      for (int64_t p = 0; p < 37; ++p) {
        const auto key = normals(static_cast<size_t>(head_dim), 100 + static_cast<uint64_t>(p));
        const auto value = normals(static_cast<size_t>(head_dim), 2000 + static_cast<uint64_t>(p));
        const auto check = [&](const std::vector<float>& x, int64_t d, double got) {
          double largest = 0;  // of the 32 that share a scale
          for (int64_t i = d / 32 * 32; i < std::min(head_dim, d / 32 * 32 + 32); ++i) {
            largest = std::max<double>(largest, std::abs(x[static_cast<size_t>(i)]));
          }
          const double expected = x[static_cast<size_t>(d)];
          // Half a step; the scale itself is rounded to fp16.
          const double rounding =
              type == KvType::kHalf ? 0x1p-11 * std::abs(expected) : largest / 127 * (0.5 + 0x1p-11 * 127);
          EXPECT_NEAR(got, expected, rounding * 1.001) << "head_dim " << head_dim << " position " << p << " d " << d;
        };
        for (int64_t d = 0; d < head_dim; ++d) {
          check(key, d, cached_key_ref(cache.layout, cache.keys.data(), p, d));
          check(value, d, cached_value_ref(cache.layout, cache.values.data(), p, d));
        }
      }
    }
  }
}

// Queries of different reach (causal and sliding window) over several blocks, few and many at a time.
TEST_P(KernelTest, AttentionEqualsItsDefinitionForEveryReach) {
  for (const KvType type : {KvType::kHalf, KvType::kByte}) {
    for (const int64_t head_dim : {8, 16, 24, 64, 80, 128}) {
      const int64_t positions = 213;
      const FilledCache cache(table(), type, head_dim, positions);
      const int64_t begin[] = {0, 0, 0, 0, 3, 16, 30, 52, 1, 64, 63, 0, 130, 0},
                    end[] = {1, 16, 17, 53, 20, 33, 53, 53, 2, 65, 129, 213, 200, 128};
      constexpr int64_t kQueries = 14;
      auto queries = normals(static_cast<size_t>(kQueries * head_dim), 14);
      for (float& x : queries) x *= 3;  // so that the softmax has a clear largest, which moves from block to block
      std::vector<float> outputs(static_cast<size_t>(kQueries * head_dim));
      std::vector<const float*> q;
      std::vector<float*> out;
      for (int64_t i = 0; i < kQueries; ++i) {
        q.push_back(queries.data() + i * head_dim);
        out.push_back(outputs.data() + i * head_dim);
      }
      const AttentionTask task{.layout = cache.layout,
                               .scale = 1.0f / std::sqrt(static_cast<float>(head_dim)),
                               .keys = cache.keys.data(),
                               .values = cache.values.data(),
                               .num_queries = kQueries,
                               .queries = q.data(),
                               .outputs = out.data(),
                               .begin = begin,
                               .end = end};
      const auto floats = static_cast<size_t>(attention_scratch_floats(task.layout, kQueries));
      std::vector<float> scratch(floats + 1, 4321.0f);
      table().attention(task, scratch.data());
      EXPECT_EQ(scratch.back(), 4321.0f) << "wrote past its scratch";
      for (int64_t i = 0; i < kQueries; ++i) {
        const auto expected = attention_ref(task, i);
        for (size_t d = 0; d < expected.size(); ++d) {
          EXPECT_NEAR(out[static_cast<size_t>(i)][d], expected[d], 1e-5) << "head_dim " << head_dim << " query " << i;
        }
      }
      // Some queries alone give the same bits as among all.
      const auto together = outputs;
      for (int64_t count : {1, 2, 3, 5}) {
        for (int64_t i = 0; i + count <= kQueries; i += count) {
          AttentionTask some = task;
          some.num_queries = count;
          some.queries += i;
          some.outputs += i;
          some.begin += i;
          some.end += i;
          std::fill(scratch.begin(), scratch.end(), std::nanf(""));
          table().attention(some, scratch.data());
        }
        EXPECT_EQ(together, outputs) << count << " at a time";
      }
    }
  }
}

TEST(Dispatch, NamesOneThatTheMachineLacksByWhatItHas) {
  EXPECT_STREQ(choose_kernels("portable").name, "portable");
  try {
    choose_kernels("sse9");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("portable"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace potstill::kernels
