// GptqCheckpoint: words laid out by hand from the format's description, then our writer's, then broken ones.
#include "potstill/formats/gptq_checkpoint.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "format_files.h"

#include "potstill/formats/ggml_blocks.h"

namespace potstill {
namespace {

using testing::HasSubstr;

constexpr int64_t kOut = 8, kIn = 16, kGroup = 8;

struct Parts {
  std::vector<uint32_t> codes = std::vector<uint32_t>(kIn / 8 * kOut);
  std::vector<uint32_t> zeros = {0x77777777u, 0x77777777u};  // version 1 stores zero − 1: all 8
  std::vector<float> scales = std::vector<float>(kIn / kGroup * kOut, 0.5f);
  std::vector<int32_t> group_of = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1};
  GptqFileConfig config{.group_size = kGroup};
};

// Column 0's inputs 0 … 7 hold codes 0 … 7 and inputs 8 … 15 codes 8 … 15; column 3 holds the same backwards.
Parts counting() {
  Parts parts;
  parts.codes[0] = 0x76543210u;
  parts.codes[kOut] = 0xFEDCBA98u;
  parts.codes[3] = 0x89ABCDEFu;
  parts.codes[kOut + 3] = 0x01234567u;
  return parts;
}

void write_parts(const std::filesystem::path& folder, const Parts& parts) {
  const std::vector<TensorSpec> specs = {{"m.qweight", DType::kI32, {kIn / 8, kOut}},
                                         {"m.qzeros", DType::kI32, {kIn / kGroup, kOut / 8}},
                                         {"m.scales", DType::kF16, {kIn / kGroup, kOut}},
                                         {"m.g_idx", DType::kI32, {kIn}},
                                         {"norm.weight", DType::kF32, {1}}};
  SafetensorsFolderWriter writer(folder, specs);
  std::vector<std::byte> halves(parts.scales.size() * 2);
  encode_row(DType::kF16, parts.scales, halves);
  const float one = 1.0f;
  writer.append("m.qweight", std::as_bytes(std::span(parts.codes)));
  writer.append("m.qzeros", std::as_bytes(std::span(parts.zeros)));
  writer.append("m.scales", halves);
  writer.append("m.g_idx", std::as_bytes(std::span(parts.group_of)));
  writer.append("norm.weight", std::as_bytes(std::span(&one, 1)));
  writer.finish();
  const nlohmann::ordered_json json = {{"quantization_config", gptq_config_to_json(parts.config, "test:1")}};
  write_file_atomically(folder / "config.json", json.dump());
}

std::vector<float> row_of(const Parts& parts, int64_t row) {
  const TempFolder folder;
  write_parts(folder.path(), parts);
  std::vector<float> values(kIn);
  GptqCheckpoint(folder.path()).read_rows("m.weight", row, 1, values);
  return values;
}

TEST(GptqCheckpoint, ReadsWordsAsTheFormatLaysThemOut) {
  const Parts parts = counting();
  const auto row = row_of(parts, 0), backwards = row_of(parts, 3);
  for (int i = 0; i < kIn; ++i) {
    EXPECT_EQ(row[static_cast<size_t>(i)], 0.5f * static_cast<float>(i - 8)) << i;
    EXPECT_EQ(backwards[static_cast<size_t>(i)], 0.5f * static_cast<float>(15 - i - 8)) << i;
  }
  const TempFolder folder;
  write_parts(folder.path(), parts);
  const GptqCheckpoint checkpoint(folder.path());
  EXPECT_EQ(checkpoint.weights().size(), 2u);
  EXPECT_EQ(checkpoint.require("m.weight").shape, (std::vector<int64_t>{kOut, kIn}));
  EXPECT_TRUE(checkpoint.is_quantized("m.weight"));
  EXPECT_EQ(checkpoint.linear("m.weight").codes[3 * kIn], 15);
  EXPECT_EQ(checkpoint.stored_bytes("m.weight"), 64u + 8u + 32u);
}

TEST(GptqCheckpoint, TakesZeroPointsOfBothVersions) {
  Parts parts = counting();
  parts.config.symmetric = false;
  parts.zeros = {0x00000002u, 0x00000004u};  // column 0: 2 and 4
  EXPECT_EQ(row_of(parts, 0)[1], 0.5f * (1 - 3));
  EXPECT_EQ(row_of(parts, 0)[9], 0.5f * (9 - 5));
  parts.config.version = 2;
  EXPECT_EQ(row_of(parts, 0)[1], 0.5f * (1 - 2));
  EXPECT_EQ(row_of(parts, 0)[9], 0.5f * (9 - 4));
}

TEST(GptqCheckpoint, FollowsGroupsInActivationOrder) {
  Parts parts = counting();
  for (int64_t o = 0; o < kOut; ++o) parts.scales[static_cast<size_t>(kOut + o)] = 2.0f;  // group 1
  std::swap(parts.group_of[1], parts.group_of[9]);
  const auto row = row_of(parts, 0);
  EXPECT_EQ(row[0], 0.5f * -8);
  EXPECT_EQ(row[1], 2.0f * -7);
  EXPECT_EQ(row[9], 0.5f * 1);
  EXPECT_EQ(row[10], 2.0f * 2);
  const TempFolder folder;
  write_parts(folder.path(), parts);
  EXPECT_THAT(error_of(ErrorKind::kInput, [&] { GptqCheckpoint(folder.path()).linear("m.weight"); }),
              HasSubstr("activation order"));
}

TEST(GptqCheckpoint, ReadsBackWhatTheWriterWrote) {
  for (const int version : {1, 2}) {
    for (const bool symmetric : {true, false}) {
      QuantizedLinear linear{.name = "m",
                             .out_features = 16,
                             .in_features = 64,
                             .group_size = 32,
                             .symmetric = symmetric,
                             .codes = {},
                             .scales = {},
                             .zeros = {}};
      for (int i = 0; i < 16 * 64; ++i) linear.codes.push_back(static_cast<uint8_t>(i * 7 % 16));
      for (int i = 0; i < 32; ++i) linear.scales.push_back(0.25f * static_cast<float>(i + 1));
      for (int i = 0; i < 32 && !symmetric; ++i) linear.zeros.push_back(static_cast<uint8_t>(1 + i % 15));
      const TempFolder folder;
      SafetensorsFolderWriter writer(folder.path(), gptq_specs("m", 16, 64, 32));
      write_gptq(writer, linear, version);
      writer.finish();
      const GptqFileConfig config{.group_size = 32, .symmetric = symmetric, .version = version};
      write_file_atomically(
          folder / "config.json",
          nlohmann::ordered_json{{"quantization_config", gptq_config_to_json(config, "test:1")}}.dump());
      const auto read = GptqCheckpoint(folder.path()).linear("m.weight");
      EXPECT_EQ(read.codes, linear.codes);
      EXPECT_EQ(read.scales, linear.scales);
      EXPECT_EQ(read.zeros, linear.zeros);
    }
  }
}

TEST(GptqCheckpoint, WriterRefusesWhatTheLayoutCannotHold) {
  EXPECT_THAT(error_of(ErrorKind::kInput, [] { gptq_specs("m", 12, 64, 32); }), HasSubstr("multiples of 8"));
  const TempFolder folder;
  QuantizedLinear linear{.name = "m",
                         .out_features = 8,
                         .in_features = 8,
                         .group_size = 8,
                         .symmetric = false,
                         .codes = std::vector<uint8_t>(64, 3),
                         .scales = std::vector<float>(8, 1.0f),
                         .zeros = std::vector<uint8_t>(8, 0)};
  SafetensorsFolderWriter writer(folder.path(), gptq_specs("m", 8, 8, 8));
  EXPECT_THAT(error_of(ErrorKind::kInput, [&] { write_gptq(writer, linear, 1); }), HasSubstr("gptq_v2"));
  linear.scales[2] = 0.1f;
  EXPECT_THAT(error_of(ErrorKind::kNumeric, [&] { write_gptq(writer, linear, 2); }), HasSubstr("no fp16 value"));
}

std::string refused(const Parts& parts, ErrorKind kind = ErrorKind::kFormat) {
  const TempFolder folder;
  write_parts(folder.path(), parts);
  return error_of(kind, [&] { GptqCheckpoint checkpoint(folder.path()); });
}

TEST(GptqCheckpoint, RefusesFilesThatLie) {
  Parts parts = counting();
  parts.group_of[5] = 2;
  EXPECT_THAT(refused(parts), HasSubstr("puts input 5 into group 2 of 2"));
  parts.group_of[5] = -1;
  EXPECT_THAT(refused(parts), HasSubstr("group -1"));
  parts = counting();
  parts.zeros[1] = 0x77777767u;
  EXPECT_THAT(refused(parts), HasSubstr("other than 8"));
  parts = counting();
  parts.config.version = 2;  // the zeros are version 1's
  EXPECT_THAT(refused(parts), HasSubstr("other than 8"));
  parts = counting();
  parts.config.group_size = 16;
  EXPECT_THAT(refused(parts), HasSubstr("make it [1, 1]"));
  parts.config.group_size = 12;
  EXPECT_THAT(refused(parts), HasSubstr("groups of 12 do not divide"));
}

TEST(GptqCheckpoint, NamesTheSettingThatIsNotSupported) {
  const auto refusal = [](const char* key, const nlohmann::json& value) {
    auto json = nlohmann::json(gptq_config_to_json({}, "test:1"));
    json[key] = value;
    return error_of(ErrorKind::kInput, [&] { gptq_config_from_json(json, "c"); });
  };
  EXPECT_THAT(refusal("bits", 3), HasSubstr("'bits' is 3"));
  EXPECT_THAT(refusal("group_size", 0), HasSubstr("'group_size' is 0"));
  EXPECT_THAT(refusal("checkpoint_format", "marlin"), HasSubstr("'checkpoint_format' is \"marlin\""));
  EXPECT_THAT(refusal("pack_dtype", "int8"), HasSubstr("'pack_dtype'"));
  EXPECT_THAT(refusal("dynamic", {{"x", 1}}), HasSubstr("'dynamic'"));
  const auto read = gptq_config_from_json(gptq_config_to_json({.group_size = 0, .version = 2}, "test:1"), "c");
  EXPECT_EQ(read.group_size, 0);
  EXPECT_EQ(read.version, 2);
}

}  // namespace
}  // namespace potstill
