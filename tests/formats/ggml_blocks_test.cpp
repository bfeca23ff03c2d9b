#include "potstill/formats/ggml_blocks.h"

#include <bit>
#include <cmath>
#include <limits>

#include "format_files.h"

#include "potstill/formats/safetensors.h"

namespace potstill {
namespace {

struct Golden {
  const char* name;
  DType dtype;
};
constexpr Golden kTypes[] = {{"Q4_0", DType::kQ4_0},
                             {"Q4_1", DType::kQ4_1},
                             {"Q8_0", DType::kQ8_0},
                             {"F16", DType::kF16},
                             {"BF16", DType::kBF16}};

std::vector<float> floats(const TensorView& tensor) {
  std::vector<float> values(tensor.bytes.size() / sizeof(float));
  std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  return values;
}

TEST(GgmlBlocksGolden, EncodesAsGgufsQuantizersBitForBit) {
  const SafetensorsFile golden(kGolden / "blocks.safetensors");
  const auto rows = floats(golden.require("rows"));
  for (const auto& [name, dtype] : kTypes) {
    const TensorView& expected = golden.require(name);
    std::vector<std::byte> encoded(expected.bytes.size());
    encode_row(dtype, rows, encoded);
    for (size_t i = 0; i < encoded.size(); ++i) ASSERT_EQ(encoded[i], expected.bytes[i]) << name << " byte " << i;
  }
}

TEST(GgmlBlocksGolden, DecodesAsGgufBitForBit) {
  const SafetensorsFile golden(kGolden / "blocks.safetensors");
  for (const auto& [name, dtype] : kTypes) {
    const auto expected = floats(golden.require(std::string(name) + ".decoded"));
    std::vector<float> decoded(expected.size());
    decode_row(dtype, golden.require(name).bytes, decoded);
    for (size_t i = 0; i < decoded.size(); ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(decoded[i]), std::bit_cast<uint32_t>(expected[i])) << name << " value " << i;
    }
  }
}

// The vectorised path and its tail, at an odd address, against the definition in base.
TEST(GgmlBlocks, DecodesEveryHalfAtAnyAddress) {
  std::vector<std::byte> storage(2 * 65536 + 1);
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    std::memcpy(&storage[1 + 2 * bits], &half, sizeof(half));
  }
  std::vector<float> values(65536 - 3);
  decode_row(DType::kF16, std::span(storage).subspan(1, 2 * values.size()), values);
  for (uint32_t bits = 0; bits < values.size(); ++bits) {
    ASSERT_EQ(std::bit_cast<uint32_t>(values[bits]),
              std::bit_cast<uint32_t>(half_to_float(static_cast<uint16_t>(bits))))
        << bits;
  }
}

TEST(GgmlBlocks, RefusesTypesThatHoldNoWeights) {
  std::byte encoded[4];
  float values[1];
  EXPECT_NE(error_of(ErrorKind::kInput, [&] { decode_row(DType::kI32, encoded, values); }), "");
  EXPECT_NE(error_of(ErrorKind::kInput, [&] { encode_row(DType::kI32, values, encoded); }), "");
  EXPECT_FALSE(is_decodable(DType::kBool));
  EXPECT_TRUE(is_decodable(DType::kQ4_1));
}

}  // namespace
}  // namespace potstill
