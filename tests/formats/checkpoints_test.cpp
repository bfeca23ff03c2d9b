// HfCheckpoint, CompressedTensorsCheckpoint and QuantizedLinear.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "format_files.h"

#include "potstill/formats/compressed_tensors.h"
#include "potstill/formats/ggml_blocks.h"
#include "potstill/formats/hf_checkpoint.h"
#include "potstill/formats/quantized_linear.h"

namespace potstill {
namespace {

using testing::HasSubstr;

void write_floats(const std::filesystem::path& path,
                  const std::vector<std::pair<std::string, std::vector<float>>>& all) {
  std::vector<TensorSpec> specs;
  for (const auto& [name, values] : all) specs.push_back({name, DType::kF32, {static_cast<int64_t>(values.size())}});
  SafetensorsWriter writer(path, specs);
  for (const auto& [name, values] : all) writer.append(name, std::as_bytes(std::span(values)));
  writer.finish();
}

void write_index(const TempFolder& folder, const nlohmann::json& weight_map) {
  write_file_atomically(folder / "model.safetensors.index.json", nlohmann::json{{"weight_map", weight_map}}.dump());
}

std::string refusal(const TempFolder& folder, ErrorKind kind = ErrorKind::kFormat) {
  return error_of(kind, [&] { HfCheckpoint checkpoint(folder.path()); });
}

TEST(HfCheckpoint, ReadsShardsAsOneSource) {
  const TempFolder folder;
  write_floats(folder / "one.safetensors", {{"b", {1, 2}}});
  write_floats(folder / "two.safetensors", {{"a", {3}}, {"lm_head.weight", {4}}, {"x.rotary_emb.inv_freq", {5}}});
  write_index(folder, {{"a", "two.safetensors"},
                       {"b", "one.safetensors"},
                       {"lm_head.weight", "two.safetensors"},
                       {"x.rotary_emb.inv_freq", "two.safetensors"}});
  const HfCheckpoint checkpoint(folder.path());
  EXPECT_EQ(checkpoint.weights().size(), 3u);  // the buffer is no weight
  EXPECT_EQ(checkpoint.read("b"), (std::vector<float>{1, 2}));
  EXPECT_EQ(checkpoint.view("a")->bytes.size(), 4u);
  EXPECT_EQ(HfCheckpoint(folder.path(), /*tied=*/true).find("lm_head.weight"), nullptr);
  float out[3];
  EXPECT_THAT(error_of(ErrorKind::kInput, [&] { checkpoint.read_rows("b", 0, 2, out); }), HasSubstr("do not fit"));
  EXPECT_THAT(error_of(ErrorKind::kInput, [&] { checkpoint.read_rows("b", INT64_MAX, 1, out); }),
              HasSubstr("do not fit"));
  EXPECT_THAT(error_of(ErrorKind::kFormat, [&] { checkpoint.read("c"); }), HasSubstr("missing tensor 'c'"));
}

TEST(HfCheckpoint, RefusesAnIndexThatLeadsOutOfTheFolder) {
  const TempFolder folder;
  for (const char* name : {"../one.safetensors", "/etc/passwd", "a\\b.safetensors", "", "one.bin"}) {
    write_index(folder, {{"a", name}});
    EXPECT_THAT(refusal(folder), HasSubstr("no name of a shard")) << name;
  }
  write_index(folder, {{"a", 1}});
  EXPECT_THAT(refusal(folder), HasSubstr("no name of a shard"));
}

TEST(HfCheckpoint, RefusesAnIndexThatDoesNotMatchItsShards) {
  const TempFolder folder;
  write_floats(folder / "one.safetensors", {{"a", {1}}, {"b", {2}}});
  write_index(folder, {{"a", "one.safetensors"}, {"c", "one.safetensors"}});
  EXPECT_THAT(refusal(folder), HasSubstr("the index says that tensor 'c' is here"));
  write_index(folder, {{"a", "one.safetensors"}});
  EXPECT_THAT(refusal(folder), HasSubstr("holds 2 tensors but the index names 1"));
  write_index(folder, {{"a", "two.safetensors"}});
  EXPECT_THAT(refusal(folder, ErrorKind::kIo), HasSubstr("two.safetensors"));
  write_file_atomically(folder / "model.safetensors.index.json", "[]");
  EXPECT_THAT(refusal(folder), HasSubstr("has no object 'weight_map'"));
}

TEST(HfCheckpoint, TellsWhyAPickleIsRefused) {
  const TempFolder folder;
  EXPECT_THAT(refusal(folder, ErrorKind::kIo), HasSubstr("has no model.safetensors"));
  write_file_atomically(folder / "pytorch_model.bin", "x");
  EXPECT_THAT(refusal(folder, ErrorKind::kIo), HasSubstr("pickle"));
}

class PackedGolden : public testing::TestWithParam<const char*> {};

// The package decodes in the scale's type: our fp32 product, which is exact, is rounded to it for the comparison.
TEST_P(PackedGolden, DecodesAsThePackage) {
  const CompressedTensorsCheckpoint checkpoint(kGolden / GetParam());
  const SafetensorsFile golden(kGolden / (std::string(GetParam()) + ".decoded.safetensors"));
  const TensorView& expected = golden.require("decoded");
  const auto ours = checkpoint.read("layer.proj.weight");
  std::vector<std::byte> rounded(expected.bytes.size());
  encode_row(expected.dtype, ours, rounded);
  ASSERT_EQ(checkpoint.require("layer.proj.weight").shape, expected.shape);
  for (size_t i = 0; i < rounded.size(); ++i) ASSERT_EQ(rounded[i], expected.bytes[i]) << "byte " << i;
  EXPECT_EQ(checkpoint.weights().size(), 2u);  // and norm.weight
  EXPECT_EQ(checkpoint.view("layer.proj.weight"), std::nullopt);
}

TEST_P(PackedGolden, WritesThePackagesTensorsByteForByte) {
  const CompressedTensorsCheckpoint checkpoint(kGolden / GetParam());
  const HfCheckpoint stored(kGolden / GetParam());
  const QuantizedLinear linear = checkpoint.linear("layer.proj.weight");
  const DType scale_dtype = stored.stored("layer.proj.weight_scale").dtype;
  const TempFolder folder;
  auto specs = packed_specs(linear.name, linear.out_features, linear.in_features, linear.group_size, linear.symmetric,
                            scale_dtype);
  SafetensorsFolderWriter writer(folder.path(), specs);
  write_packed(writer, linear, scale_dtype);
  writer.finish();
  const HfCheckpoint written(folder.path());
  for (const TensorSpec& spec : specs) {
    const TensorView &ours = written.stored(spec.name), &theirs = stored.stored(spec.name);
    EXPECT_EQ(ours.shape, theirs.shape) << spec.name;
    EXPECT_TRUE(std::ranges::equal(ours.bytes, theirs.bytes)) << spec.name;
  }
}

TEST_P(PackedGolden, ReadsAnyRows) {
  const CompressedTensorsCheckpoint checkpoint(kGolden / GetParam());
  const auto all = checkpoint.read("layer.proj.weight");
  const auto& shape = checkpoint.require("layer.proj.weight").shape;
  std::vector<float> two(static_cast<size_t>(2 * shape[1]));
  for (int64_t row = 0; row + 2 <= shape[0]; ++row) {
    checkpoint.read_rows("layer.proj.weight", row, 2, two);
    EXPECT_TRUE(std::equal(two.begin(), two.end(), all.begin() + row * shape[1])) << row;
  }
}

INSTANTIATE_TEST_SUITE_P(All, PackedGolden, testing::Values("packed_symmetric", "packed_asymmetric", "packed_channel"),
                         [](const auto& test) { return std::string(test.param); });

TEST(CompressedTensorsConfig, ReadsBackWhatItWrites) {
  const CompressedTensorsConfig config{
      .group_size = 64, .symmetric = false, .actorder = "static", .ignore = {"lm_head", "x"}};
  const auto json = nlohmann::json(compressed_tensors_config_to_json(config));
  const auto read = compressed_tensors_config_from_json(json, "c");
  EXPECT_EQ(read.group_size, 64);
  EXPECT_FALSE(read.symmetric);
  EXPECT_EQ(read.actorder, "static");
  EXPECT_EQ(read.ignore, config.ignore);
  EXPECT_EQ(json["config_groups"]["group_0"]["weights"]["strategy"], "group");
}

TEST(CompressedTensorsConfig, NamesWhatIsNotSupported) {
  CompressedTensorsConfig groups_of_64;
  groups_of_64.group_size = 64;
  const auto refused = [&](const char* pointer, const nlohmann::json& value) {
    auto json = nlohmann::json(compressed_tensors_config_to_json(groups_of_64));
    json[nlohmann::json::json_pointer(pointer)] = value;
    return error_of(ErrorKind::kInput, [&] { compressed_tensors_config_from_json(json, "c"); });
  };
  const std::string weights = "/config_groups/group_0/weights";
  EXPECT_THAT(refused("/format", "marlin-24"), HasSubstr("'format' is \"marlin-24\""));
  EXPECT_THAT(refused((weights + "/num_bits").c_str(), 3), HasSubstr("'num_bits' is 3"));
  EXPECT_THAT(refused((weights + "/type").c_str(), "float"), HasSubstr("'type' is \"float\""));
  EXPECT_THAT(refused((weights + "/strategy").c_str(), "block"), HasSubstr("'strategy' is \"block\""));
  EXPECT_THAT(refused((weights + "/group_size").c_str(), 0), HasSubstr("'group_size' is 0"));
  EXPECT_THAT(refused("/config_groups/group_1", nlohmann::json::object()), HasSubstr("'targets' is null"));
  EXPECT_THAT(refused("/config_groups", nlohmann::json::object()), HasSubstr("'config_groups'"));
  EXPECT_THAT(refused("/config_groups/group_0/targets", {"re:("}), HasSubstr("'targets'"));
  EXPECT_THAT(refused("/config_groups/group_0/input_activations", {{"num_bits", 8}}), HasSubstr("'input_activations'"));
  EXPECT_THAT(refused("/kv_cache_scheme", {{"num_bits", 8}}), HasSubstr("'kv_cache_scheme'"));
}

// Linears by name or pattern are 8-bit, the rest 4-bit: the codes of both come back.
TEST(CompressedTensorsCheckpoint, HoldsLinearsOfTwoWidths) {
  const TempFolder folder;
  CompressedTensorsConfig config;
  config.group_size = 32;
  config.overrides = {{.targets = {"re:.*down_proj", "layers.0.o_proj"}, .bits = 8, .group_size = 16}};
  nlohmann::ordered_json json;
  json["quantization_config"] = compressed_tensors_config_to_json(config);
  write_file_atomically(folder / "config.json", json.dump());
  std::vector<QuantizedLinear> linears;
  std::vector<TensorSpec> specs;
  for (const char* name : {"layers.0.o_proj", "layers.1.o_proj", "layers.1.down_proj"}) {
    const bool wide = name != std::string("layers.1.o_proj");
    QuantizedLinear linear;
    linear.name = name;
    linear.out_features = 3;
    linear.in_features = 64;
    linear.group_size = wide ? 16 : 32;
    linear.bits = wide ? 8 : 4;
    for (int i = 0; i < 3 * 64; ++i) linear.codes.push_back(static_cast<uint8_t>(i * 41 % (wide ? 256 : 16)));
    for (int i = 0; i < 3 * (wide ? 4 : 2); ++i) linear.scales.push_back(0.125f * static_cast<float>(i + 1));
    for (auto& spec : packed_specs(name, 3, 64, linear.group_size, true, DType::kF16, linear.bits))
      specs.push_back(spec);
    linears.push_back(linear);
  }
  SafetensorsFolderWriter writer(folder.path(), specs);
  for (const auto& linear : linears) write_packed(writer, linear);
  writer.finish();
  const CompressedTensorsCheckpoint checkpoint(folder.path());
  for (const auto& linear : linears) {
    const std::string weight = linear.name + ".weight";
    const auto read = checkpoint.linear(weight);
    EXPECT_EQ(read.codes, linear.codes) << weight;
    EXPECT_EQ(read.scales, linear.scales) << weight;
    EXPECT_EQ(checkpoint.bits(weight), linear.bits);
    std::vector<float> expected(3 * 64);
    dequantize_rows(linear, 0, 3, expected);
    EXPECT_EQ(checkpoint.read(weight), expected) << weight;
  }
}

QuantizedLinear small_linear(bool symmetric) {
  QuantizedLinear linear{.name = "m",
                         .out_features = 2,
                         .in_features = 64,
                         .group_size = 64,
                         .symmetric = symmetric,
                         .codes = {},
                         .scales = {0.5f, -0.25f},
                         .zeros = {}};
  for (int i = 0; i < 128; ++i) linear.codes.push_back(static_cast<uint8_t>(i * 7 % 16));
  if (!symmetric) linear.zeros = {3, 15};
  return linear;
}

TEST(QuantizedLinear, BlocksDecodeToTheSameWeights) {
  for (const bool symmetric : {true, false}) {
    const QuantizedLinear linear = small_linear(symmetric);
    std::vector<float> expected(64), decoded(64);
    dequantize_rows(linear, 1, 1, expected);
    const DType dtype = symmetric ? DType::kQ4_0 : DType::kQ4_1;
    std::vector<std::byte> blocks(static_cast<size_t>(2 * block_bytes(dtype)));
    write_block_rows(linear, dtype, 1, 1, blocks);
    decode_row(dtype, blocks, decoded);
    EXPECT_EQ(decoded, expected) << symmetric;
  }
}

TEST(QuantizedLinear, EightBitCodesAreQ8_0BlocksUntouched) {
  QuantizedLinear linear = small_linear(true);
  linear.bits = 8;
  for (size_t i = 0; i < linear.codes.size(); ++i) linear.codes[i] = static_cast<uint8_t>(i * 83);
  std::vector<float> expected(64), decoded(64);
  dequantize_rows(linear, 0, 1, expected);
  std::vector<std::byte> blocks(static_cast<size_t>(2 * block_bytes(DType::kQ8_0)));
  write_block_rows(linear, DType::kQ8_0, 0, 1, blocks);
  decode_row(DType::kQ8_0, blocks, decoded);
  EXPECT_EQ(decoded, expected);
  EXPECT_THAT(error_of(ErrorKind::kInput, [&] { write_block_rows(linear, DType::kQ4_0, 0, 1, blocks); }),
              HasSubstr("codes of 8 bits"));
}

TEST(QuantizedLinear, RefusesWhatBlocksCannotHold) {
  std::vector<std::byte> out(36);
  QuantizedLinear linear = small_linear(false);
  const auto write = [&] { write_block_rows(linear, DType::kQ4_0, 0, 1, out); };
  EXPECT_THAT(error_of(ErrorKind::kInput, write), HasSubstr("zero points, which Q4_0 cannot hold"));
  linear = small_linear(true);
  linear.scales[0] = 0.1f;
  EXPECT_THAT(error_of(ErrorKind::kNumeric, write), HasSubstr("is no fp16 value"));
}

TEST(QuantizedLinear, ChecksItsSizes) {
  const auto refused = [](auto change) {
    QuantizedLinear linear = small_linear(false);
    change(linear);
    return error_of(ErrorKind::kInput, [&] { check_quantized_linear(linear, "here"); });
  };
  EXPECT_THAT(refused([](auto& l) { l.group_size = 48; }), HasSubstr("groups of 48 do not divide [2, 64]"));
  EXPECT_THAT(refused([](auto& l) { l.codes.pop_back(); }), HasSubstr("127 codes where [2, 64] takes 128"));
  EXPECT_THAT(refused([](auto& l) { l.scales.pop_back(); }), HasSubstr("1 scales where 2 are needed"));
  EXPECT_THAT(refused([](auto& l) { l.symmetric = true; }), HasSubstr("2 zeros where 0 are needed"));
  EXPECT_THAT(refused([](auto& l) { l.codes[5] = 16; }), HasSubstr("is over 15"));
}

// One tensor of the golden folder replaced, the rest kept.
std::string packed_refusal(const std::string& name, DType dtype, std::vector<int64_t> shape, const std::string& bytes) {
  const HfCheckpoint golden(kGolden / "packed_asymmetric");
  const TempFolder folder;
  std::vector<TensorSpec> specs;
  for (const WeightInfo& weight : golden.weights()) {
    if (weight.name != name) specs.push_back({weight.name, weight.dtype, weight.shape});
  }
  if (!shape.empty()) specs.push_back({name, dtype, shape});
  SafetensorsFolderWriter writer(folder.path(), specs);
  for (const TensorSpec& spec : specs) {
    writer.append(spec.name, spec.name == name ? bytes_of(bytes) : golden.stored(spec.name).bytes);
  }
  writer.finish();
  std::filesystem::copy_file(kGolden / "packed_asymmetric/config.json", folder / "config.json");
  return error_of(ErrorKind::kFormat, [&] { CompressedTensorsCheckpoint checkpoint(folder.path()); });
}

TEST(CompressedTensorsCheckpoint, RefusesScalesThatAreNoNumbers) {
  const HfCheckpoint golden(kGolden / "packed_asymmetric");
  const TempFolder folder;
  std::vector<TensorSpec> specs;
  for (const WeightInfo& weight : golden.weights()) specs.push_back({weight.name, weight.dtype, weight.shape});
  SafetensorsFolderWriter writer(folder.path(), specs);
  for (const TensorSpec& spec : specs) {
    const auto& stored = golden.stored(spec.name).bytes;
    std::vector<std::byte> bytes(stored.begin(), stored.end());
    if (spec.name.ends_with("weight_scale")) bytes[0] = bytes[1] = std::byte{0xff};  // NaN in fp16 and bf16
    writer.append(spec.name, bytes);
  }
  writer.finish();
  std::filesystem::copy_file(kGolden / "packed_asymmetric/config.json", folder / "config.json");
  const CompressedTensorsCheckpoint checkpoint(folder.path());
  EXPECT_THAT(error_of(ErrorKind::kFormat, [&] { checkpoint.read("layer.proj.weight"); }),
              HasSubstr("holds the scale"));
}

TEST(CompressedTensorsCheckpoint, RefusesTensorsThatDoNotFitEachOther) {
  const std::string prefix = "layer.proj.weight";
  const auto shape_says = [&](int64_t out, int64_t in) {
    return packed_refusal(prefix + "_shape", DType::kI64, {2}, raw(out) + raw(in));
  };
  EXPECT_THAT(shape_says(10, 100), HasSubstr("which groups of 32 do not divide"));
  EXPECT_THAT(shape_says(-10, 96), HasSubstr("which groups of 32 do not divide"));
  EXPECT_THAT(shape_says(11, 96), HasSubstr("make it [11, 12]"));
  EXPECT_THAT(shape_says(10, int64_t{1} << 60), HasSubstr("make it [10,"));
  EXPECT_THAT(packed_refusal(prefix + "_shape", DType::kI32, {2}, raw(10) + raw(96)), HasSubstr("is I32, not I64"));
  EXPECT_THAT(packed_refusal(prefix + "_scale", DType::kF16, {2}, "1234"), HasSubstr("make it [10, 3]"));
  EXPECT_THAT(packed_refusal(prefix + "_zero_point", DType::kI32, {}, ""), HasSubstr("missing tensor"));
  EXPECT_THAT(packed_refusal(prefix + "_packed", DType::kI32, {}, ""), HasSubstr("belongs to no 'weight_packed'"));
}

}  // namespace
}  // namespace potstill
