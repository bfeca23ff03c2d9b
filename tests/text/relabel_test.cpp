#include "potstill/text/relabel.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "potstill/base/error.h"
#include "potstill/text/byte_alphabet.h"

namespace potstill {
namespace {

// All bytes, "ab", "abc", " a", and an added token that ends a turn.
Vocabulary vocabulary_of_bytes() {
  Vocabulary vocabulary;
  for (int byte = 0; byte < 256; ++byte)
    vocabulary.tokens.push_back(spell_bytes(std::string(1, static_cast<char>(byte))));
  for (const char* token : {"ab", "abc", "Ġa"}) vocabulary.tokens.push_back(token);
  vocabulary.merges = {"a b", "ab c", "Ġ a"};
  vocabulary.types.assign(vocabulary.tokens.size(), TokenType::kNormal);
  vocabulary.tokens.push_back("<|end|>");
  vocabulary.types.push_back(TokenType::kControl);
  vocabulary.added = {{.content = "<|end|>", .id = 259, .special = true}};
  vocabulary.eos = 259;
  return vocabulary;
}

constexpr const char* kText = "abc abacus<|end|> caab\n";

std::vector<std::string> pieces(const Tokenizer& tokenizer, const std::string& text) {
  std::vector<std::string> pieces;
  for (const TokenId id : tokenizer.encode(text)) pieces.push_back(tokenizer.decode_bytes(std::span(&id, 1)));
  return pieces;
}

TEST(Relabel, ShuffledIdsCutTextIntoTheSamePieces) {
  const Vocabulary vocabulary = vocabulary_of_bytes();
  const auto old_ids = shuffled_ids(vocabulary, 7);
  const Tokenizer first(vocabulary), second(relabel_vocabulary(vocabulary, old_ids));
  EXPECT_EQ(pieces(second, kText), pieces(first, kText));
  const auto ids = second.encode(kText);
  std::vector<TokenId> back;
  for (const TokenId id : ids) back.push_back(old_ids[static_cast<size_t>(id)]);
  EXPECT_EQ(back, first.encode(kText));
  EXPECT_NE(ids, first.encode(kText));
  EXPECT_FALSE(compare_tokenizers(first, second).same);
  EXPECT_EQ(second.vocabulary().eos, second.id_of("<|end|>"));
  EXPECT_TRUE(second.is_special(*second.id_of("<|end|>")));
}

TEST(Relabel, FewerMergesCutTextIntoMorePieces) {
  const Vocabulary vocabulary = vocabulary_of_bytes();
  const auto ids = ids_of_first_merges(vocabulary, 0.34);  // the first of three
  EXPECT_EQ(ids.size(), vocabulary.tokens.size() - 2);
  EXPECT_TRUE(std::ranges::is_sorted(ids));
  const Tokenizer first(vocabulary), fewer(relabel_vocabulary(vocabulary, ids));
  EXPECT_EQ(fewer.vocabulary().merges, std::vector<std::string>{"a b"});
  EXPECT_EQ(pieces(fewer, "abc a"), (std::vector<std::string>{"ab", "c", " ", "a"}));
  EXPECT_EQ(pieces(first, "abc a"), (std::vector<std::string>{"abc", " a"}));
  EXPECT_EQ(fewer.decode(fewer.encode(kText)), kText);
  EXPECT_EQ(fewer.vocabulary().eos, fewer.id_of("<|end|>"));
}

TEST(Relabel, SurvivesItsOwnFile) {
  const Vocabulary vocabulary = vocabulary_of_bytes();
  const Tokenizer written(relabel_vocabulary(vocabulary, shuffled_ids(vocabulary, 3)));
  const Tokenizer read = Tokenizer::from_tokenizer_json(written.to_tokenizer_json(), written.to_tokenizer_config(), "");
  EXPECT_EQ(read.encode(kText), written.encode(kText));
}

TEST(Relabel, IdsThatAreNotThereOrNamedTwiceAreErrors) {
  const Vocabulary vocabulary = vocabulary_of_bytes();
  EXPECT_THROW(relabel_vocabulary(vocabulary, std::vector<TokenId>{0, 260}), Error);
  EXPECT_THROW(relabel_vocabulary(vocabulary, std::vector<TokenId>{-1}), Error);
  EXPECT_THROW(relabel_vocabulary(vocabulary, std::vector<TokenId>{5, 5}), Error);
}

}  // namespace
}  // namespace potstill
