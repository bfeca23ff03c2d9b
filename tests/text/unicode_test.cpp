#include "potstill/text/unicode.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

namespace potstill {
namespace {

DecodedCodePoint decode(std::string_view text) { return decode_utf8(text.data(), text.data() + text.size()); }

TEST(Unicode, EveryCodePointIsWrittenAndReadBack) {
  for (uint32_t code_point = 0; code_point < 0x110000; ++code_point) {
    std::string text;
    append_utf8(code_point, text);
    const DecodedCodePoint back = decode(text);
    const bool is_surrogate = code_point >= 0xD800 && code_point < 0xE000;
    ASSERT_EQ(back.code_point, is_surrogate ? kInvalidCodePoint : code_point);
    ASSERT_EQ(to_valid_utf8(text) == text, !is_surrogate);
    if (!is_surrogate) {
      ASSERT_EQ(back.length, text.size());
    }
  }
}

// Unicode Standard, section 3.9, tables 3-8 to 3-11: substitution of maximal subparts.
TEST(Unicode, EachMaximalInvalidSubpartBecomesOneReplacement) {
  const std::string r = "\uFFFD";
  EXPECT_EQ(to_valid_utf8("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(to_valid_utf8("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(to_valid_utf8("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42"), r + r + r + r + r + "A" + r + r + "B");
  EXPECT_EQ(to_valid_utf8("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), r + r + r + r + "A");
  EXPECT_EQ(to_valid_utf8("0123456789é0123456789"), "0123456789é0123456789");
}

TEST(Unicode, OnlyWhatCanStillBecomeValidIsHeldBack) {
  EXPECT_EQ(complete_utf8_prefix(""), 0u);
  EXPECT_EQ(complete_utf8_prefix("ab"), 2u);
  EXPECT_EQ(complete_utf8_prefix("a\xE2"), 1u);
  EXPECT_EQ(complete_utf8_prefix("a\xE2\x82"), 1u);
  EXPECT_EQ(complete_utf8_prefix("a\xE2\x82\xAC"), 4u);
  EXPECT_EQ(complete_utf8_prefix("a\xF0\x9F\x98"), 1u);
  EXPECT_EQ(complete_utf8_prefix("a\xED\xA0"), 3u);  // a surrogate: lost already
  EXPECT_EQ(complete_utf8_prefix("a\x80\x80\x80"), 4u);
  EXPECT_EQ(complete_utf8_prefix("a\xFF"), 2u);
}

TEST(Unicode, ClassesAreThoseOfTheTokenizersPackage) {
  const CodePointClasses& classes = CodePointClasses::get();
  EXPECT_EQ(classes['a'] & (kLetter | kNumber | kSpace | kNumeric | kWord), kLetter | kWord);
  EXPECT_EQ(classes['7'] & (kLetter | kNumber | kSpace | kNumeric | kWord), kNumber | kNumeric | kWord);
  EXPECT_TRUE(classes[0x4E00] & kLetter);
  EXPECT_TRUE(classes[0x00BD] & kNumber);
  EXPECT_TRUE(classes[0x3000] & kSpace);
  EXPECT_FALSE(classes[0x200B] & kSpace);
  EXPECT_FALSE(classes[0x001C] & kSpace);
  // a digit of Unicode 17: Rust's standard library knows it, the regular expressions do not
  EXPECT_TRUE(classes[0x11DE0] & kNumeric);
  EXPECT_FALSE(classes[0x11DE0] & kNumber);
  // U+0344 decomposes; U+09FE, a mark of Unicode 11, is unknown to the normaliser
  EXPECT_FALSE(classes[0x0344] & kNfcYes);
  EXPECT_TRUE(classes[0x09FE] & kNfcInert);
  int letters = 0;
  for (uint32_t c = 0; c < 0x110000; ++c) letters += (classes[c] & kLetter) != 0;
  EXPECT_EQ(letters, 141028);  // as make_unicode_classes.py counts them
}

// tests/golden/text/make_nfc_golden.py: the normaliser of tokenizers 0.23.3.
TEST(UnicodeGolden, NfcEqualsTheTokenizersPackage) {
  std::ifstream file(POTSTILL_SOURCE_DIR "/tests/golden/text/nfc.json");
  ASSERT_TRUE(file);
  for (const auto& row : nlohmann::json::parse(file)) {
    const std::string text = row[0], expected = row[1];
    EXPECT_EQ(to_nfc(text), expected) << row.dump(-1, ' ', /*ensure_ascii=*/true);
    EXPECT_TRUE(!is_nfc_at_sight(text) || text == expected) << row.dump(-1, ' ', /*ensure_ascii=*/true);
  }
  EXPECT_EQ(to_nfc("\xFF"
                   "e\u0301\x80"),
            "\xFF"
            "\u00E9\x80");  // invalid bytes stay
}

TEST(Unicode, BlanksAndWordsAtTheEnds) {
  EXPECT_EQ(leading_space(" \u3000\ta"), 5u);
  EXPECT_EQ(trailing_space("a \u2003"), 4u);
  EXPECT_EQ(trailing_space("a\x80"), 0u);
  EXPECT_EQ(trailing_space(" "), 1u);
  EXPECT_TRUE(starts_with_word("éa"));
  EXPECT_TRUE(ends_with_word(".é"));
  EXPECT_FALSE(ends_with_word("é."));
  EXPECT_FALSE(starts_with_word(""));
}

}  // namespace
}  // namespace potstill
