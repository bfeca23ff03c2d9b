// Ids and texts against what the `tokenizers` package and llama.cpp made of the same strings, for four vocabularies.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "potstill/text/tokenizer.h"

namespace potstill {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

fs::path tokenizers_folder() { return fs::path(POTSTILL_SOURCE_DIR) / "../shared/data/tokenizers"; }

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

Tokenizer load(const fs::path& folder) {
  const fs::path config = folder / "tokenizer_config.json";
  return Tokenizer::from_tokenizer_json(json::parse(read_text(folder / "tokenizer.json")),
                                        fs::exists(config) ? json::parse(read_text(config)) : json(), folder.string());
}

class TokenizerFixture : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    folder_ = tokenizers_folder() / GetParam();
    if (!fs::exists(folder_ / "tokenizer.json")) GTEST_SKIP() << "needs " << folder_;
  }
  fs::path folder_;
};

TEST_P(TokenizerFixture, IdsAndTextsEqualTheTokenizersPackage) {
  const Tokenizer tokenizer = load(folder_);
  std::ifstream lines(folder_ / "expected_ids.jsonl");
  int num_lines = 0;
  for (std::string line; std::getline(lines, line); ++num_lines) {
    const json row = json::parse(line);
    const std::string text = row["text"];
    const auto ids = row["ids"].get<std::vector<TokenId>>();
    EXPECT_EQ(tokenizer.encode(text), ids) << "text: " << row["text"];
    EXPECT_EQ(tokenizer.encode(text, /*add_special_tokens=*/true), row["ids_special"].get<std::vector<TokenId>>());
    EXPECT_EQ(tokenizer.decode(ids), row["decoded"]) << "ids: " << row["ids"];
  }
  EXPECT_GT(num_lines, 100);
}

TEST_P(TokenizerFixture, IdsEqualLlamaCppOnItsOwnVocabularyTests) {
  fs::path inputs;
  for (const auto& entry : fs::directory_iterator(folder_)) {
    if (entry.path().extension() == ".inp") inputs = entry.path();
  }
  if (inputs.empty()) GTEST_SKIP() << "llama.cpp's tests of this vocabulary are not in " << folder_;
  const Tokenizer tokenizer = load(folder_);
  const std::string all = read_text(inputs), separator = "\n__ggml_vocab_test__\n";
  std::istringstream outputs(read_text(inputs.replace_extension(".out")));
  int num_tests = 0;
  for (size_t start = 0; start < all.size(); ++num_tests) {
    const size_t stop = std::min(all.find(separator, start), all.size());
    std::string line;
    ASSERT_TRUE(std::getline(outputs, line));
    std::istringstream words(line);
    const std::vector<TokenId> ids{std::istream_iterator<TokenId>(words), {}};
    EXPECT_EQ(tokenizer.encode(all.substr(start, stop - start)), ids) << "text: " << all.substr(start, stop - start);
    start = stop + separator.size();
  }
  EXPECT_GT(num_tests, 40);
}

INSTANTIATE_TEST_SUITE_P(Families, TokenizerFixture, testing::Values("gpt2", "llama3", "qwen2.5", "smollm2"),
                         [](const auto& family) {
                           std::string name = family.param;
                           std::erase(name, '.');
                           return name;
                         });

}  // namespace
}  // namespace potstill
