#include "potstill/formats/safetensors.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "format_files.h"

namespace potstill {
namespace {

using testing::HasSubstr;

// A file of this header and `data_bytes` bytes of data.
std::string file_of(const std::string& header, size_t data_bytes) {
  return raw<uint64_t>(header.size()) + header + std::string(data_bytes, '\1');
}

std::string refusal(const std::string& file, ErrorKind kind = ErrorKind::kFormat) {
  return error_of(kind, [&] { parse_safetensors(bytes_of(file), "f"); });
}

constexpr const char* kOneTensor = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";

TEST(Safetensors, ReadsOneTensor) {
  const std::string file = file_of(kOneTensor, 8);
  const auto contents = parse_safetensors(bytes_of(file), "f");
  ASSERT_EQ(contents.tensors.size(), 1u);
  EXPECT_EQ(contents.tensors[0].name, "a");
  EXPECT_EQ(contents.tensors[0].shape, (std::vector<int64_t>{2}));
  EXPECT_EQ(contents.tensors[0].bytes.size(), 8u);
}

TEST(Safetensors, TakesAnEmptyHeaderAndTrailingSpaces) {
  EXPECT_TRUE(parse_safetensors(bytes_of(file_of("{}      ", 0)), "f").tensors.empty());
}

TEST(Safetensors, RefusesAFileShorterThanItsLength) {
  EXPECT_THAT(refusal("1234567"), HasSubstr("length of the header needs 8 bytes but 7 remain"));
}

TEST(Safetensors, RefusesAHeaderOverTheLimit) {
  EXPECT_THAT(refusal(raw<uint64_t>(100'000'001) + "{}"), HasSubstr("over the limit of 100000000"));
}

TEST(Safetensors, RefusesAHeaderPastTheEnd) {
  EXPECT_THAT(refusal(raw<uint64_t>(50) + "{}"), HasSubstr("header needs 50 bytes but 2 remain"));
}

TEST(Safetensors, RefusesAHeaderThatBeginsWithASpace) {
  EXPECT_THAT(refusal(file_of(" {}", 0)), HasSubstr("does not begin with '{'"));
}

TEST(Safetensors, RefusesBrokenJson) {
  EXPECT_THAT(refusal(file_of("{\"a\":", 0)), HasSubstr("is not valid JSON"));
  EXPECT_THAT(refusal(file_of("{} x", 0)), HasSubstr("is not valid JSON"));
}

TEST(Safetensors, RefusesAHeaderThatIsNotUtf8) {
  EXPECT_THAT(refusal(file_of("{\"a\xff\":{}}", 0)), HasSubstr("is not valid JSON"));
}

TEST(Safetensors, RefusesDuplicateKeys) {
  const std::string header = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],)"
                             R"("data_offsets":[8,16]}})";
  EXPECT_THAT(refusal(file_of(header, 16)), HasSubstr("key 'a' stands twice"));
}

TEST(Safetensors, RefusesDeepNesting) {
  std::string header = R"({"a":)" + std::string(100'000, '[') + std::string(100'000, ']') + "}";
  EXPECT_THAT(refusal(file_of(header, 0)), HasSubstr("nested deeper"));
}

TEST(Safetensors, RefusesUnknownAndUnsupportedTypes) {
  EXPECT_THAT(refusal(file_of(R"({"a":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}})", 8)),
              HasSubstr("unknown dtype \"F31\""));
  EXPECT_THAT(refusal(file_of(R"({"a":{"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]}})", 8), ErrorKind::kInput),
              HasSubstr("'a' is F8_E4M3, which is not supported"));
}

TEST(Safetensors, RefusesMissingOrWrongMembers) {
  EXPECT_THAT(refusal(file_of(R"({"a":{"shape":[2],"data_offsets":[0,8]}})", 8)), HasSubstr("has no 'dtype'"));
  EXPECT_THAT(refusal(file_of(R"({"a":{"dtype":"F32","data_offsets":[0,8]}})", 8)), HasSubstr("has no 'shape'"));
  EXPECT_THAT(refusal(file_of(R"({"a":{"dtype":"F32","shape":[2]}})", 8)), HasSubstr("has no 'data_offsets'"));
  EXPECT_THAT(refusal(file_of(R"({"a":7})", 0)), HasSubstr("is not an object"));
  EXPECT_THAT(refusal(file_of(R"({"a":{"dtype":4,"shape":[2],"data_offsets":[0,8]}})", 8)),
              HasSubstr("is not a string"));
  EXPECT_THAT(refusal(file_of(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8)), HasSubstr("no size"));
  EXPECT_THAT(refusal(file_of(R"({"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", 8)), HasSubstr("no size"));
  EXPECT_THAT(refusal(file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", 8)),
              HasSubstr("are not two sizes"));
}

TEST(Safetensors, RefusesOffsetsThatRunBackwardsOrPastTheEnd) {
  EXPECT_THAT(refusal(file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8)),
              HasSubstr("begins at 8 but ends at 0"));
  EXPECT_THAT(refusal(file_of(kOneTensor, 7)), HasSubstr("ends at byte 8 of 7 bytes of data"));
}

TEST(Safetensors, RefusesAShapeThatDoesNotFitItsBytes) {
  EXPECT_THAT(refusal(file_of(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8)),
              HasSubstr("cannot take 8 bytes"));
  // 2^32 · 2^32 elements wrap to 0 in 64 bits
  EXPECT_THAT(refusal(file_of(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0)),
              HasSubstr("cannot take 0 bytes"));
}

TEST(Safetensors, RefusesHolesOverlapsAndUncoveredData) {
  const auto two = [](const char* b_offsets, size_t data) {
    return file_of(
        std::string(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],)"
                    R"("data_offsets":)") +
            b_offsets + "}}",
        data);
  };
  EXPECT_THAT(refusal(two("[12,16]", 16)), HasSubstr("a hole"));
  EXPECT_THAT(refusal(two("[4,8]", 8)), HasSubstr("they overlap"));
  EXPECT_THAT(refusal(two("[8,12]", 13)), HasSubstr("tensors end at byte 12 of 13"));
}

TEST(Safetensors, RefusesMetadataThatIsNotStrings) {
  EXPECT_THAT(refusal(file_of(R"({"__metadata__":{"a":1}})", 0)), HasSubstr("__metadata__ 'a' is not a string"));
  EXPECT_THAT(refusal(file_of(R"({"__metadata__":[]})", 0)), HasSubstr("__metadata__ is not an object"));
}

TEST(SafetensorsGolden, ReadsEveryTypeOfThePackagesFile) {
  const SafetensorsFile file(kGolden / "small.safetensors");
  EXPECT_EQ(file.tensors().size(), 13u);
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(file.require("scalar").shape, std::vector<int64_t>{});
  EXPECT_EQ(file.require("empty").shape, (std::vector<int64_t>{0, 4}));
  EXPECT_EQ(file.require("bf16").dtype, DType::kBF16);
  EXPECT_NE(file.find("näme \"quoted\""), nullptr);
  EXPECT_EQ(file.find("absent"), nullptr);
  int64_t second;
  std::memcpy(&second, file.require("i64").bytes.data() + 8, sizeof(second));
  EXPECT_EQ(second, int64_t{1} << 40);
}

TEST(SafetensorsGolden, WritesThePackagesFileByteForByte) {
  const SafetensorsFile golden(kGolden / "small.safetensors");
  const TempFolder folder;
  std::vector<TensorSpec> specs;
  for (const TensorView& tensor : golden.tensors()) specs.push_back({tensor.name, tensor.dtype, tensor.shape});
  SafetensorsWriter writer(folder / "out.safetensors", specs);
  for (size_t i = golden.tensors().size(); i-- > 0;) {  // the order of the data does not matter, nor how it is cut
    const TensorView& tensor = golden.tensors()[i];
    const size_t cut = tensor.bytes.size() / 2;
    writer.append(tensor.name, tensor.bytes.first(cut));
    writer.append(tensor.name, tensor.bytes.subspan(cut));
  }
  writer.finish();
  EXPECT_EQ(read_file(folder / "out.safetensors"), read_file(kGolden / "small.safetensors"));
}

TEST(SafetensorsWriter, LeavesNothingWhenATensorIsIncomplete) {
  const TempFolder folder;
  {
    SafetensorsWriter writer(folder / "out.safetensors", {{"a", DType::kF32, {2}}});
    EXPECT_THAT(error_of(ErrorKind::kInput, [&] { writer.append("a", bytes_of("123456789")); }),
                HasSubstr("takes 8 bytes but 9 were given"));
    EXPECT_THAT(error_of(ErrorKind::kInput, [&] { writer.append("b", bytes_of("1")); }), HasSubstr("was not declared"));
    writer.append("a", bytes_of("1234"));
    EXPECT_THAT(error_of(ErrorKind::kInput, [&] { writer.finish(); }), HasSubstr("only 4 were given"));
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(SafetensorsWriter, RefusesDuplicateNamesAndBlockTypes) {
  const TempFolder folder;
  EXPECT_THAT(error_of(ErrorKind::kInput,
                       [&] {
                         SafetensorsWriter(folder / "o", {{"a", DType::kF32, {1}}, {"a", DType::kI8, {1}}});
                       }),
              HasSubstr("'a' cannot be written"));
  EXPECT_THAT(error_of(ErrorKind::kInput,
                       [&] {
                         SafetensorsWriter(folder / "o", {{"a", DType::kQ4_0, {32}}});
                       }),
              HasSubstr("no element type for Q4_0"));
}

TEST(SafetensorsFolderWriter, CutsShardsInTheDeclaredOrderAndIndexesThem) {
  const TempFolder folder;
  SafetensorsFolderWriter writer(folder.path(),
                                 {{"c", DType::kF32, {4}}, {"a", DType::kF32, {4}}, {"b", DType::kF32, {2}}},
                                 /*max_shard_bytes=*/24);
  writer.append("a", bytes_of(std::string(16, 'a')));
  writer.append("b", bytes_of(std::string(8, 'b')));
  writer.append("c", bytes_of(std::string(16, 'c')));
  writer.finish();
  EXPECT_EQ(SafetensorsFile(folder / "model-00001-of-00002.safetensors").tensors().size(), 1u);
  EXPECT_EQ(SafetensorsFile(folder / "model-00002-of-00002.safetensors").tensors().size(), 2u);
  const auto index = nlohmann::json::parse(read_file(folder / "model.safetensors.index.json"));
  EXPECT_EQ(index["metadata"]["total_size"], 40);
  EXPECT_EQ(index["weight_map"]["c"], "model-00001-of-00002.safetensors");
}

}  // namespace
}  // namespace potstill
