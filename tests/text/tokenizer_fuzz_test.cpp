// A hundred thousand strings a vocabulary, off by default: the fixtures are 40 MB each.
//
//   python tests/golden/text/make_tokenizer_fuzz.py fixture llama3/tokenizer.json 100000 1 DIR/llama3.bin
//   cp llama3/tokenizer.json DIR/llama3.json
//   POTSTILL_TOKENIZER_FUZZ=DIR build/release/tests/text_test --gtest_filter='TokenizerFuzz.*'
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "potstill/base/byte_reader.h"
#include "potstill/base/mapped_file.h"
#include "potstill/text/tokenizer.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

template <class T>
std::vector<T> read_array(ByteReader& reader) {
  const auto size = reader.read<uint32_t>("size");
  const auto bytes = reader.take(uint64_t{size} * sizeof(T), "values");
  std::vector<T> values(size);
  if (size != 0) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

std::string read_string(ByteReader& reader) {
  const auto bytes = read_array<char>(reader);
  return {bytes.begin(), bytes.end()};
}

std::string quoted(const std::string& text) { return nlohmann::json(text).dump(-1, ' ', /*ensure_ascii=*/true); }

TEST(TokenizerFuzz, EqualsThePackage) {
  const char* folder = std::getenv("POTSTILL_TOKENIZER_FUZZ");
  if (!folder) GTEST_SKIP() << "POTSTILL_TOKENIZER_FUZZ names no folder of fixtures";
  int num_fixtures = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    fs::path path = entry.path();
    if (path.extension() != ".bin") continue;
    const MappedFile file(path);
    ByteReader reader(path.string(), file.bytes());
    std::ifstream json(path.replace_extension(".json"));
    const auto tokenizer = Tokenizer::from_tokenizer_json(nlohmann::json::parse(json), {}, path.string());
    size_t num_strings = 0, num_differences = 0;
    while (reader.remaining() > 0 && num_differences < 20) {
      const std::string text = read_string(reader);
      const auto ids = read_array<TokenId>(reader), ordinary = read_array<TokenId>(reader);
      const std::string decoded = read_string(reader);
      const auto noise = read_array<TokenId>(reader);
      const std::string noise_text = read_string(reader);
      bool same = true;
      const auto expect = [&](bool equal, const char* what) {
        EXPECT_TRUE(equal) << path.filename() << ": " << what << " of " << quoted(text);
        same = same && equal;
      };
      expect(tokenizer.encode(text) == ids, "ids");
      expect(tokenizer.encode_ordinary(text) == ordinary, "ordinary ids");
      expect(tokenizer.decode(ids) == decoded, "decoded text");
      expect(tokenizer.decode(noise, /*skip_special_tokens=*/true) == noise_text, "decoded noise beside");
      StreamDecoder stream(tokenizer);
      std::string streamed;
      for (const TokenId id : noise) streamed += stream.push(id);
      streamed += stream.finish();
      expect(streamed == noise_text, "streamed noise beside");
      num_strings += 1;
      num_differences += !same;
    }
    EXPECT_EQ(num_differences, 0u);
    std::cout << path.stem().string() << ": " << num_strings << " strings\n";
    ++num_fixtures;
  }
  EXPECT_GT(num_fixtures, 0);
}

}  // namespace
}  // namespace potstill
