#include "potstill/text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "potstill/base/error.h"
#include "potstill/base/rng.h"
#include "potstill/text/byte_alphabet.h"

namespace potstill {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

json read_json(const std::string& name) {
  std::ifstream file(std::string(POTSTILL_SOURCE_DIR) + "/tests/golden/text/" + name);
  return json::parse(file);
}

// All bytes (id = byte), then "ab", "abc", " a", and what the caller adds.
Vocabulary byte_vocabulary() {
  Vocabulary vocabulary;
  for (int byte = 0; byte < 256; ++byte)
    vocabulary.tokens.push_back(spell_bytes(std::string(1, static_cast<char>(byte))));
  for (const char* token : {"ab", "abc", "Ġa"}) vocabulary.tokens.push_back(token);
  vocabulary.merges = {"a b", "ab c", "Ġ a"};
  vocabulary.types.assign(vocabulary.tokens.size(), TokenType::kNormal);
  return vocabulary;
}

TokenId add(Vocabulary& vocabulary, const std::string& content, bool special) {
  const auto id = static_cast<TokenId>(vocabulary.tokens.size());
  vocabulary.tokens.push_back(content);
  vocabulary.types.push_back(special ? TokenType::kControl : TokenType::kUserDefined);
  vocabulary.added.push_back({.content = content, .id = id, .special = special});
  return id;
}

std::string error_of(const json& tokenizer, const json& config = {}) {
  try {
    Tokenizer::from_tokenizer_json(tokenizer, config, "tokenizer.json");
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

// tests/golden/text/make_added_tokens_golden.py: tokenizers 0.23.3, every mixture of the flags.
TEST(TokenizerGolden, AddedTokensOfAllFlagsEqualTheTokenizersPackage) {
  for (const json& row : read_json("added_tokens.json")) {
    const auto tokenizer = Tokenizer::from_tokenizer_json(row["tokenizer"], {}, "added_tokens.json");
    const Tokenizer again = Tokenizer::from_tokenizer_json(tokenizer.to_tokenizer_json(), {}, "written");
    for (const json& test : row["rows"]) {
      const std::string text = test["text"];
      const auto ids = test["ids"].get<std::vector<TokenId>>();
      EXPECT_EQ(tokenizer.encode(text, /*add_special_tokens=*/true), ids)
          << test["text"] << row["tokenizer"]["added_tokens"];
      EXPECT_EQ(again.encode(text, /*add_special_tokens=*/true), ids) << test["text"];
      EXPECT_EQ(tokenizer.encode_ordinary(text), test["ordinary"].get<std::vector<TokenId>>()) << test["text"];
      EXPECT_EQ(tokenizer.decode(ids), test["decoded"].get<std::string>());
      EXPECT_EQ(tokenizer.decode(ids, /*skip_special_tokens=*/true), test["skipped"].get<std::string>());
    }
  }
}

TEST(Tokenizer, MergesByRankFromTheLeft) {
  const Tokenizer tokenizer(byte_vocabulary());
  EXPECT_THAT(tokenizer.encode("abc"), ElementsAre(257));
  EXPECT_THAT(tokenizer.encode("x ab"), ElementsAre('x', ' ', 256));  // "a b" ranks before "Ġ a"
  EXPECT_THAT(tokenizer.encode(" ac"), ElementsAre(258, 'c'));
}

TEST(Tokenizer, LongAndShortWordsMergeAlike) {
  const Tokenizer tokenizer(byte_vocabulary());
  Rng rng(3, "words");
  for (int i = 0; i < 200; ++i) {  // a separator that never merges makes a long word out of short ones
    std::string joined;
    std::vector<TokenId> expected;
    for (int part = 0; part < 12; ++part) {
      std::string word;
      for (uint64_t left = 1 + rng.below(9); left > 0; --left) word += static_cast<char>('a' + rng.below(3));
      const auto ids = tokenizer.encode(word);
      expected.insert(expected.end(), ids.begin(), ids.end());
      expected.push_back('q');
      joined += word + "q";
    }
    EXPECT_EQ(tokenizer.encode(joined), expected) << joined;
  }
}

TEST(Tokenizer, InvalidUtf8IsEncodedByteByByteAndComesBack) {
  const Tokenizer tokenizer(byte_vocabulary());
  Rng rng(9, "bytes");
  for (int i = 0; i < 300; ++i) {
    std::string bytes;
    for (uint64_t left = rng.below(24); left > 0; --left) bytes += static_cast<char>(rng.below(256));
    EXPECT_EQ(tokenizer.decode_bytes(tokenizer.encode(bytes)), bytes);
  }
  EXPECT_EQ(tokenizer.decode(std::vector<TokenId>{'a', 0xE2, 0x82, 'b', 0xFF}), "a\uFFFDb\uFFFD");
}

TEST(Tokenizer, OrdinaryTextSpellsSpecialTokensOut) {
  Vocabulary vocabulary = byte_vocabulary();
  const TokenId end = add(vocabulary, "<|im_end|>", /*special=*/true),
                tool = add(vocabulary, "<tool>", /*special=*/false);
  const Tokenizer tokenizer(std::move(vocabulary));
  EXPECT_THAT(tokenizer.encode("ab<|im_end|><tool>"), ElementsAre(256, end, tool));
  const auto ordinary = tokenizer.encode_ordinary("<|im_end|>");
  EXPECT_EQ(ordinary.size(), 10u);
  EXPECT_EQ(tokenizer.decode(ordinary), "<|im_end|>");
  EXPECT_TRUE(tokenizer.is_special(end));
  EXPECT_FALSE(tokenizer.is_special(tool));
  EXPECT_EQ(tokenizer.decode(std::vector<TokenId>{256, end, tool}, /*skip_special_tokens=*/true), "ab<tool>");
}

TEST(Tokenizer, TypesAloneNameTheAddedTokens) {
  Vocabulary vocabulary = byte_vocabulary();
  const TokenId end = add(vocabulary, "<|im_end|>", /*special=*/true);
  vocabulary.added.clear();  // as GGUF has it
  EXPECT_THAT(Tokenizer(std::move(vocabulary)).encode("<|im_end|>"), ElementsAre(end));
}

TEST(Tokenizer, FindsIdsBySpelling) {
  Vocabulary vocabulary = byte_vocabulary();
  const TokenId added = add(vocabulary, "two words", /*special=*/true);
  const Tokenizer tokenizer(std::move(vocabulary));
  EXPECT_EQ(tokenizer.id_of("Ġa"), 258);
  EXPECT_EQ(tokenizer.id_of("two words"), added);
  EXPECT_EQ(tokenizer.id_of(" a"), std::nullopt);
  EXPECT_EQ(tokenizer.id_of(""), std::nullopt);
  EXPECT_EQ(tokenizer.size(), added + 1);
}

TEST(Tokenizer, RefusesIdsThatItDoesNotHave) {
  const Tokenizer tokenizer(byte_vocabulary());
  EXPECT_THROW(tokenizer.decode(std::vector<TokenId>{259}), Error);
  EXPECT_THROW(tokenizer.decode(std::vector<TokenId>{-1}), Error);
}

TEST(Tokenizer, ThreadsShareIt) {
  const Tokenizer tokenizer(byte_vocabulary());
  const std::string text = "abc ab a cab abcabc 12 a'b";
  const auto expected = Tokenizer(byte_vocabulary()).encode(text);
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int repeat = 0; repeat < 500; ++repeat) EXPECT_EQ(tokenizer.encode(text), expected);
    });
  }
}

TEST(StreamDecoder, HoldsTornSequencesBack) {
  const Tokenizer tokenizer(byte_vocabulary());
  StreamDecoder stream(tokenizer);
  EXPECT_EQ(stream.push('a'), "a");
  EXPECT_EQ(stream.push(0xE2), "");  // € is E2 82 AC
  EXPECT_EQ(stream.push(0x82), "");
  EXPECT_EQ(stream.push(0xAC), "€");
  EXPECT_EQ(stream.push(0xF0), "");
  EXPECT_EQ(stream.push('b'), "\uFFFDb");  // the sequence cannot go on
  EXPECT_EQ(stream.push(0xED), "");
  EXPECT_EQ(stream.push(0xA0), "\uFFFD\uFFFD");  // a surrogate: two sequences, neither of which can go on
  EXPECT_EQ(stream.push(0xC3), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
  EXPECT_EQ(stream.finish(), "");
}

TEST(CompareTokenizers, PaddingMakesNoDifferenceAndOthersAreNamed) {
  Vocabulary a = byte_vocabulary(), padded = a, other = a;
  for (const char* pad : {"[PAD259]", "<|reserved_special_token_0|>"}) add(padded, pad, /*special=*/true);
  EXPECT_TRUE(compare_tokenizers(Tokenizer(a), Tokenizer(padded)).same);
  EXPECT_TRUE(compare_tokenizers(Tokenizer(padded), Tokenizer(a)).same);
  add(padded, "<|im_end|>", /*special=*/true);
  EXPECT_THAT(compare_tokenizers(Tokenizer(a), Tokenizer(padded)).difference,
              HasSubstr("id 261 is nothing and '<|im_end|>'"));
  other.tokens[258] = "Ġb";
  other.merges[2] = "Ġ b";
  const auto comparison = compare_tokenizers(Tokenizer(a), Tokenizer(other));
  EXPECT_FALSE(comparison.same);
  EXPECT_THAT(comparison.difference, HasSubstr("id 258 is 'Ġa' and 'Ġb'"));
}

TEST(TokenizerJson, WrittenAndReadAgainIsTheSameVocabulary) {
  for (const PreTokenizer pre :
       {PreTokenizer::kGpt2, PreTokenizer::kLlama3, PreTokenizer::kQwen2, PreTokenizer::kSmolLm}) {
    Vocabulary vocabulary = byte_vocabulary();
    vocabulary.pre = pre;
    vocabulary.nfc = pre == PreTokenizer::kQwen2;
    vocabulary.ignore_merges = vocabulary.add_bos = pre == PreTokenizer::kLlama3;
    vocabulary.bos = add(vocabulary, "<|begin|>", /*special=*/true);
    vocabulary.eos = add(vocabulary, "<|end|>", /*special=*/true);
    vocabulary.tokens.push_back("[PAD261]");
    vocabulary.types.push_back(TokenType::kUnused);
    const Tokenizer tokenizer(vocabulary);
    const Tokenizer again =
        Tokenizer::from_tokenizer_json(tokenizer.to_tokenizer_json(), tokenizer.to_tokenizer_config(), "written");
    EXPECT_EQ(again.vocabulary().pre, pre);
    EXPECT_EQ(again.vocabulary().nfc, vocabulary.nfc);
    EXPECT_EQ(again.vocabulary().add_bos, vocabulary.add_bos);
    EXPECT_EQ(again.vocabulary().ignore_merges, vocabulary.ignore_merges);
    EXPECT_EQ(again.vocabulary().tokens, vocabulary.tokens);
    EXPECT_EQ(again.vocabulary().merges, vocabulary.merges);
    EXPECT_EQ(again.vocabulary().bos, vocabulary.bos);
    EXPECT_EQ(again.vocabulary().eos, vocabulary.eos);
    EXPECT_EQ(again.encode("abc 12<|end|>", true), tokenizer.encode("abc 12<|end|>", true));
  }
}

TEST(TokenizerJson, ReadsMergesOfEitherSpelling) {
  json file = Tokenizer(byte_vocabulary()).to_tokenizer_json();
  ASSERT_TRUE(file["model"]["merges"][0].is_array());
  file["model"]["merges"] = {"#version: 0.2", "a b", "ab c", "Ġ a"};
  EXPECT_THAT(Tokenizer::from_tokenizer_json(file, {}, "legacy").encode("abc"), ElementsAre(257));
}

TEST(TokenizerJson, RefusesWhatItDoesNotUnderstandByItsKey) {
  const json good = Tokenizer(byte_vocabulary()).to_tokenizer_json();
  EXPECT_EQ(error_of(good), "no error");
  const auto with = [&](const char* pointer, const json& value) {
    json bad = good;
    bad[json::json_pointer(pointer)] = value;
    return error_of(bad);
  };
  EXPECT_THAT(error_of(json::array()), HasSubstr("is no JSON object"));
  EXPECT_THAT(error_of(json::object()), HasSubstr("key 'model' is missing"));
  EXPECT_THAT(with("/model/type", "Unigram"), HasSubstr("'Unigram'"));
  EXPECT_THAT(with("/model/byte_fallback", true), HasSubstr("byte_fallback"));
  EXPECT_THAT(with("/model/dropout", 0.1), HasSubstr("dropout"));
  EXPECT_THAT(with("/model/vocab", json::array()), HasSubstr("model.vocab"));
  EXPECT_THAT(with("/model/vocab/a", -1), HasSubstr("-1 is no token id"));
  EXPECT_THAT(with("/model/vocab/a", 2000000000), HasSubstr("id 2000000000 in a vocabulary of 259 tokens"));
  EXPECT_THAT(with("/model/vocab/a", 98), HasSubstr("id 98 is both"));
  EXPECT_THAT(with("/model/merges", {"a"}), HasSubstr("merge 0 'a'"));
  EXPECT_THAT(with("/model/merges", {"a z"}), HasSubstr("'az', which is no token"));
  EXPECT_THAT(with("/model/merges", {7}), HasSubstr("model.merges"));
  json unknown = good;
  unknown["model"]["unk_token"] = "ab";
  EXPECT_EQ(error_of(unknown), "no error");
  unknown["model"]["vocab"].erase("q");
  EXPECT_THAT(error_of(unknown), HasSubstr("no token for byte 0x71"));
  EXPECT_THAT(with("/pre_tokenizer", {{"type", "Whitespace"}}), HasSubstr("pre_tokenizer"));
  EXPECT_THAT(with("/pre_tokenizer/add_prefix_space", true), HasSubstr("add_prefix_space"));
  EXPECT_THAT(with("/normalizer", {{"type", "Lowercase"}}), HasSubstr("'Lowercase'"));
  EXPECT_THAT(with("/post_processor", {{"type", "BertProcessing"}}), HasSubstr("'BertProcessing'"));
  EXPECT_THAT(with("/added_tokens", {{{"id", 300}}}), HasSubstr("added_tokens[0]"));
  EXPECT_THAT(error_of(good, {{"eos_token", "<|nothing|>"}}), HasSubstr("'<|nothing|>' is no token"));
}

TEST(Vocabulary, ThatContradictsItselfIsRefused) {
  const auto refused = [](auto change) {
    Vocabulary vocabulary = byte_vocabulary();
    change(vocabulary);
    EXPECT_THROW(Tokenizer(std::move(vocabulary), "model.gguf"), Error);
  };
  refused([](Vocabulary& v) { v.tokens.clear(); });
  refused([](Vocabulary& v) { v.types.pop_back(); });
  refused([](Vocabulary& v) { v.eos = 259; });
  refused([](Vocabulary& v) { v.add_bos = true; });
  refused([](Vocabulary& v) { v.merges.push_back("nothing"); });
  refused([](Vocabulary& v) { v.merges.push_back("x y"); });
  refused([](Vocabulary& v) { v.merges.push_back("€ a"); });
  refused([](Vocabulary& v) { v.added.push_back({.content = "x", .id = 7000}); });
}

}  // namespace
}  // namespace potstill
