#include "potstill/formats/gguf.h"

#include <gmock/gmock.h>

#include "format_files.h"

namespace potstill {
namespace {

using testing::HasSubstr;

std::string text(std::string_view value) { return raw<uint64_t>(value.size()) + std::string(value); }

// A GGUF by hand: counts as given, key-value pairs and infos as raw bytes, then padding and data.
struct HandMade {
  std::string magic = "GGUF";
  uint32_t version = 3;
  uint64_t num_tensors = 0, num_keys = 0;
  std::string keys, infos, data;

  HandMade& key(std::string_view name, uint32_t type, const std::string& value) {
    keys += text(name) + raw(type) + value;
    ++num_keys;
    return *this;
  }
  HandMade& tensor(std::string_view name, std::vector<uint64_t> dimensions, uint32_t type, uint64_t offset) {
    infos += text(name) + raw(static_cast<uint32_t>(dimensions.size()));
    for (const uint64_t dimension : dimensions) infos += raw(dimension);
    infos += raw(type) + raw(offset);
    ++num_tensors;
    return *this;
  }
  HandMade& bytes(size_t count) {
    data = std::string(count, '\1');
    return *this;
  }
  std::string file() const {
    std::string out = magic + raw(version) + raw(num_tensors) + raw(num_keys) + keys + infos;
    if (num_tensors > 0) out.resize((out.size() + 31) / 32 * 32, '\0');
    return out + data;
  }
};

std::string refusal(const std::string& file, ErrorKind kind = ErrorKind::kFormat) {
  return error_of(kind, [&] { parse_gguf(bytes_of(file), "f"); });
}
std::string refusal(const HandMade& made, ErrorKind kind = ErrorKind::kFormat) { return refusal(made.file(), kind); }

TEST(Gguf, ReadsShapesInTorchOrder) {
  const std::string file = HandMade().tensor("a", {3, 2}, 0, 0).bytes(24).file();
  const auto contents = parse_gguf(bytes_of(file), "f");
  ASSERT_EQ(contents.tensors.size(), 1u);
  EXPECT_EQ(contents.tensors[0].shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(contents.tensors[0].bytes.size(), 24u);
}

TEST(Gguf, RefusesWrongMagicAndVersions) {
  HandMade made;
  made.magic = "GGML";
  EXPECT_THAT(refusal(made), HasSubstr("does not begin with 'GGUF'"));
  made.magic = "GGUF";
  made.version = 2;
  EXPECT_THAT(refusal(made), HasSubstr("GGUF version 2 but 3 is read"));
  made.version = 0x03000000;
  EXPECT_THAT(refusal(made), HasSubstr("big-endian"));
}

TEST(Gguf, RefusesEveryTruncation) {
  const std::string file = HandMade()
                               .key("k", 8, text("value"))
                               .key("n", 9, raw(5u) + raw(uint64_t{2}) + raw(1) + raw(2))
                               .tensor("a", {32, 2}, 2, 0)
                               .tensor("b", {3}, 0, 64)
                               .bytes(64 + 12)
                               .file();
  ASSERT_EQ(parse_gguf(bytes_of(file), "f").tensors.size(), 2u);
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_THROW(parse_gguf(bytes_of(file).first(size), "f"), Error) << "of " << size << " bytes";
  }
}

TEST(Gguf, RefusesCountsThatTheFileCannotHold) {
  HandMade made;
  made.num_keys = UINT64_MAX;
  EXPECT_THAT(refusal(made), HasSubstr("key needs 8 bytes but 0 remain"));
  made = {};
  made.num_tensors = UINT64_MAX;
  EXPECT_THAT(refusal(made), HasSubstr("a tensor has no name"));
  EXPECT_THAT(refusal(HandMade().key("k", 8, raw(UINT64_MAX))), HasSubstr("needs 18446744073709551615 bytes"));
  EXPECT_THAT(refusal(HandMade().key("k", 9, raw(4u) + raw(uint64_t{1} << 60))),
              HasSubstr("elements but 0 bytes remain"));
}

TEST(Gguf, RefusesBadKeysAndValues) {
  EXPECT_THAT(refusal(HandMade().key("", 4, raw(1u))), HasSubstr("a key is empty"));
  EXPECT_THAT(refusal(HandMade().key("k", 4, raw(1u)).key("k", 4, raw(1u))), HasSubstr("key 'k' stands twice"));
  EXPECT_THAT(refusal(HandMade().key("k", 13, raw(1u))), HasSubstr("unknown value type 13"));
  EXPECT_THAT(refusal(HandMade().key("k", 7, "\2")), HasSubstr("holds 2, which is no bool"));
  EXPECT_THAT(refusal(HandMade().key("k", 8, text("\xc0\x80"))), HasSubstr("is not UTF-8"));
  EXPECT_THAT(refusal(HandMade().key("k\xff", 4, raw(1u))), HasSubstr("is not UTF-8"));
  EXPECT_THAT(refusal(HandMade().key("k", 9, raw(9u) + raw(uint64_t{0}))), HasSubstr("array of arrays"));
  EXPECT_THAT(refusal(HandMade().key(std::string(65536, 'k'), 4, raw(1u))), HasSubstr("over the limit of 65535"));
}

TEST(Gguf, RefusesAnAlignmentThatIsNoPowerOfTwo) {
  for (const uint32_t alignment : {0u, 3u, 48u}) {
    EXPECT_THAT(refusal(HandMade().key("general.alignment", 4, raw(alignment))), HasSubstr("power of two"));
  }
  EXPECT_THAT(refusal(HandMade().key("general.alignment", 10, raw(uint64_t{32}))), HasSubstr("not a UINT32"));
}

TEST(Gguf, RefusesBadTensorInfos) {
  EXPECT_THAT(refusal(HandMade().tensor(std::string(64, 'n'), {1}, 0, 0).bytes(4)), HasSubstr("over the limit of 63"));
  EXPECT_THAT(refusal(HandMade().tensor("a", {1}, 0, 0).tensor("a", {1}, 0, 32).bytes(36)), HasSubstr("stands twice"));
  EXPECT_THAT(refusal(HandMade().tensor("a", {1, 1, 1, 1, 1}, 0, 0).bytes(4)), HasSubstr("has 5 dimensions"));
  EXPECT_THAT(refusal(HandMade().tensor("a", {uint64_t{1} << 63}, 0, 0)), HasSubstr("has a dimension of"));
  EXPECT_THAT(refusal(HandMade().tensor("a", {uint64_t{1} << 32, uint64_t{1} << 32}, 0, 0)),
              HasSubstr("cannot be F32"));
  EXPECT_THAT(refusal(HandMade().tensor("a", {33}, 2, 0).bytes(36)), HasSubstr("cannot be Q4_0"));
  EXPECT_THAT(refusal(HandMade().tensor("a", {1}, 4, 0).bytes(4)), HasSubstr("unknown type 4"));
  EXPECT_THAT(refusal(HandMade().tensor("a", {256}, 14, 0).bytes(210), ErrorKind::kInput),
              HasSubstr("'a' is Q6_K, which is not supported"));
}

TEST(Gguf, RefusesHolesOverlapsAndBytesPastTheEnd) {
  EXPECT_THAT(refusal(HandMade().tensor("a", {1}, 0, 32).bytes(36)), HasSubstr("a hole"));
  EXPECT_THAT(refusal(HandMade().tensor("a", {9}, 0, 0).tensor("b", {1}, 0, 32).bytes(68)),
              HasSubstr("tensors overlap"));
  EXPECT_THAT(refusal(HandMade().tensor("a", {9}, 0, 0).bytes(35)), HasSubstr("needs 36 bytes but 35 remain"));
  EXPECT_THAT(refusal(HandMade().tensor("a", {1}, 0, 0).bytes(33)), HasSubstr("1 bytes follow the last tensor"));
}

TEST(GgufGolden, ReadsEveryTypeOfThePackagesFile) {
  const GgufFile file(kGolden / "small.gguf");
  EXPECT_EQ(file.integer("k.u8"), 200);
  EXPECT_EQ(file.integer("k.i8"), -100);
  EXPECT_EQ(file.integer("k.u16"), 60000);
  EXPECT_EQ(file.integer("k.i16"), -30000);
  EXPECT_EQ(file.integer("k.u32"), 4000000000);
  EXPECT_EQ(file.integer("k.i32"), -2000000000);
  EXPECT_EQ(file.number("k.f32"), static_cast<double>(1e-5f));
  EXPECT_EQ(file.boolean("k.bool"), true);
  EXPECT_EQ(file.string("k.string"), "Grüße\n");
  EXPECT_EQ(std::get<uint64_t>(file.find("k.u64")->value), (uint64_t{1} << 63) + 5);
  EXPECT_EQ(file.integer("k.i64"), -(int64_t{1} << 62));
  EXPECT_EQ(file.number("k.f64"), 0.1);
  EXPECT_EQ(*file.strings("k.strings"), (std::vector<std::string>{"a", "", "\u0120b"}));
  EXPECT_EQ(file.integers("k.ints"), (std::vector<int64_t>{1, -2, 3}));
  EXPECT_EQ(std::get<std::vector<double>>(file.find("k.floats")->value), (std::vector<double>{0.5, -2.0}));
  EXPECT_EQ(std::get<std::vector<bool>>(file.find("k.bools")->value), (std::vector<bool>{true, false}));
  EXPECT_EQ(file.find("absent"), nullptr);
  EXPECT_EQ(file.find_tensor("q4_1")->dtype, DType::kQ4_1);
  EXPECT_EQ(file.find_tensor("f16")->shape, (std::vector<int64_t>{3, 7}));
  EXPECT_THAT(error_of(ErrorKind::kFormat, [&] { file.string("k.u8"); }), HasSubstr("'k.u8' is not a string"));
  EXPECT_THAT(error_of(ErrorKind::kFormat, [&] { file.integer("k.u64"); }), HasSubstr("is not an integer"));
  EXPECT_THAT(error_of(ErrorKind::kFormat, [&] { file.require_integer("k.none"); }), HasSubstr("missing key 'k.none'"));
}

TEST(GgufGolden, WritesThePackagesFileByteForByte) {
  const GgufFile golden(kGolden / "small.gguf");
  const TempFolder folder;
  std::vector<TensorSpec> specs;
  for (const TensorView& tensor : golden.tensors()) specs.push_back({tensor.name, tensor.dtype, tensor.shape});
  GgufWriter writer(folder / "out.gguf", golden.metadata(), specs);
  for (const TensorView& tensor : golden.tensors()) writer.append(tensor.name, tensor.bytes);
  writer.finish();
  EXPECT_EQ(read_file(folder / "out.gguf"), read_file(kGolden / "small.gguf"));
}

TEST(GgufWriter, KeepsAnotherAlignment) {
  const TempFolder folder;
  GgufWriter writer(folder / "out.gguf", {{"k", GgufValue::u32(7)}}, {{"a", DType::kF32, {1}}, {"b", DType::kF32, {1}}},
                    64);
  writer.append("b", bytes_of("bbbb"));
  writer.append("a", bytes_of("aaaa"));
  writer.finish();
  const GgufFile file(folder / "out.gguf");
  EXPECT_EQ(file.alignment(), 64u);
  EXPECT_EQ(static_cast<char>(file.find_tensor("b")->bytes[0]), 'b');
  EXPECT_EQ(std::filesystem::file_size(folder / "out.gguf") % 64, 0u);
}

TEST(GgufWriter, RefusesWhatLlamaCppWouldNotLoad) {
  const TempFolder folder;
  const auto refused = [&](const GgufMetadata& metadata, const std::vector<TensorSpec>& tensors) {
    return error_of(ErrorKind::kInput, [&] { GgufWriter(folder / "o.gguf", metadata, tensors); });
  };
  EXPECT_THAT(refused({}, {{std::string(64, 'n'), DType::kF32, {1}}}), HasSubstr("is not 1 to 63 bytes"));
  EXPECT_THAT(refused({}, {{"a", DType::kBool, {1}}}), HasSubstr("is BOOL, which GGUF has not"));
  EXPECT_THAT(refused({}, {{"a", DType::kQ8_0, {33}}}), HasSubstr("cannot be stored as Q8_0"));
  EXPECT_THAT(refused({}, {{"a", DType::kF32, {1, 1, 1, 1, 1}}}), HasSubstr("5 dimensions"));
  EXPECT_THAT(refused({}, {{"a", DType::kF32, {1}}, {"a", DType::kF32, {1}}}), HasSubstr("declared twice"));
  EXPECT_THAT(refused({{"k", GgufValue::u32(1)}, {"k", GgufValue::u32(1)}}, {}),
              HasSubstr("key 'k' cannot be written"));
  EXPECT_THAT(refused({{"k", GgufValue::u32(uint64_t{1} << 32)}}, {}), HasSubstr("does not fit its metadata type"));
}

}  // namespace
}  // namespace potstill
