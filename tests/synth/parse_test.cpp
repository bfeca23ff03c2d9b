#include "potstill/synth/parse.h"

#include <gtest/gtest.h>

#include <array>

namespace potstill {
namespace {

TEST(CleanAnswer, TakesOffLabelsMarksAndQuotes) {
  EXPECT_EQ(clean_answer("  Question: What is ice? \n"), "What is ice?");
  EXPECT_EQ(clean_answer("1. What is ice?"), "What is ice?");
  EXPECT_EQ(clean_answer("- \"What is ice?\""), "What is ice?");
  EXPECT_EQ(clean_answer("**Answer:** Ice is water."),
            "**Answer:** Ice is water.");  // bold inside stays, for the filter
  EXPECT_EQ(clean_answer("A:  Ice   is\twater."), "Ice is water.");
  EXPECT_EQ(clean_answer("\xE2\x80\x9CIce is water.\xE2\x80\x9D"), "Ice is water.");
}

TEST(CleanAnswer, KeepsWhatOnlyLooksLikeAMark) {
  EXPECT_EQ(clean_answer("24 hours make a day."), "24 hours make a day.");
  EXPECT_EQ(clean_answer("3.5 grams is its mass."), "3.5 grams is its mass.");
  EXPECT_EQ(clean_answer("\"Ice\" and \"snow\""), "\"Ice\" and \"snow\"");
  EXPECT_EQ(clean_answer(""), "");
  EXPECT_EQ(clean_answer(" \n\t "), "");
}

TEST(ParseList, ReadsNumberedBulletedAndPlainLines) {
  EXPECT_EQ(parse_list("1. rocks\n2) soil\n3. Rocks\n", false, 8), (std::vector<std::string>{"rocks", "soil"}));
  EXPECT_EQ(parse_list("Here are the topics:\n- rocks\n- soil.\n\nEnjoy!", false, 8),
            (std::vector<std::string>{"rocks", "soil"}));
  EXPECT_EQ(parse_list("rocks\nsoil", false, 8), (std::vector<std::string>{"rocks", "soil"}));
}

TEST(ParseList, DropsTheCutLastItemAndLongOnes) {
  EXPECT_EQ(parse_list("1. rocks\n2. so", true, 8), (std::vector<std::string>{"rocks"}));
  EXPECT_EQ(parse_list("1. rocks\n2. a b c d", false, 3), (std::vector<std::string>{"rocks"}));
  EXPECT_TRUE(parse_list("", true, 3).empty());
}

class ParseCritique : public testing::Test {
 protected:
  const std::array<std::string, 2> criteria{"clarity", "correctness"};
};

TEST_F(ParseCritique, ReadsTheLastObjectAmongProse) {
  const auto critique = parse_critique(
      "Let me think {about it}. {\"clarity\": 1, \"correctness\": 1}\nBetter: ```json\n{\"clarity\": 4, "
      "\"correctness\": \"5/5\", \"reason\": \"clear {and} right\"}\n```",
      criteria);
  ASSERT_TRUE(critique);
  EXPECT_EQ(critique->scores.at("clarity"), 4.0);
  EXPECT_EQ(critique->scores.at("correctness"), 5.0);
  EXPECT_EQ(critique->reason, "clear {and} right");
}

TEST_F(ParseCritique, ReadsNumbersAsTextAndFractions) {
  EXPECT_EQ(parse_critique(R"({"clarity": "3", "correctness": 4.5})", criteria)->scores.at("correctness"), 4.5);
}

TEST_F(ParseCritique, GivesNothingForWhatItCannotTrust) {
  for (const char* text : {
           "",
           "no object",
           "{",
           "{\"clarity\": 5",
           "{\"clarity\": 5}",                          // missing, cut off, half
           R"({"clarity": 5, "correctness": 6})",       // above the scale
           R"({"clarity": 0, "correctness": 5})",       // below it
           R"({"clarity": 5, "correctness": null})",    // no number
           R"({"clarity": 5, "correctness": "five"})",  //
           R"({"clarity": 5, "correctness": "4/10"})",  // another scale
           R"({"clarity": [5], "correctness": 5})",     //
           R"({"clarity": 5, "correctness": "nan"})",   //
           R"([5, 5])",
           R"({"scores": {"clarity": 5}, "correctness": 5})",
       }) {
    EXPECT_FALSE(parse_critique(text, criteria)) << text;
  }
}

TEST_F(ParseCritique, StandsHostileText) {
  EXPECT_FALSE(parse_critique(std::string(5000, '{'), criteria));
  EXPECT_FALSE(parse_critique("{\"clarity\": \"\\", criteria));
  EXPECT_FALSE(parse_critique("{\xFF\xFE}", criteria));
}

TEST(ParseOptions, ReadsOneLineAndLists) {
  const std::vector<std::string> three{"a cold night", "a dark room", "a deep hole"};
  EXPECT_EQ(parse_options(" a cold night; a dark room; a deep hole", false), three);
  EXPECT_EQ(parse_options("1. a cold night\n2. a dark room\n3) a deep hole\n", false), three);
  EXPECT_EQ(parse_options("a cold night; a dark room; a de", true).size(), 2u);
  EXPECT_TRUE(parse_options(" ; ;", false).empty());
}

class ParseItem : public testing::Test {
 protected:
  ItemParts read(std::string_view text) { return parse_item(text, keys_); }
  std::vector<std::string> keys_{"question", "answer", "wrong"};
};

TEST_F(ParseItem, ReadsAWholeObjectAmongProse) {
  const auto parts = read(R"(Here it is: {"question": "Why?", "answer": "So.", "wrong": ["a", "b"]} Good luck!)");
  EXPECT_FALSE(parts.repaired);
  EXPECT_EQ(parts.texts.at("question"), "Why?");
  EXPECT_EQ(parts.lists.at("wrong"), (std::vector<std::string>{"a", "b"}));
}

TEST_F(ParseItem, SavesThePartsThatAreWhole) {
  const auto cut = read(R"({"question": "Why does \"it\" rain?", "answer": "Clouds.", "wrong": ["snow", "wi)");
  EXPECT_TRUE(cut.repaired);
  EXPECT_EQ(cut.texts.at("question"), "Why does \"it\" rain?");
  EXPECT_EQ(cut.lists.at("wrong"), (std::vector<std::string>{"snow"}));
  const auto no_commas = read("{question: \"Why?\" answer: \"So\nit is.\"");
  EXPECT_EQ(no_commas.texts.at("question"), "Why?");
  EXPECT_EQ(no_commas.texts.at("answer"), "So it is.");
  const auto cut_early = read(R"({"question": "Why does it)");
  EXPECT_TRUE(cut_early.texts.empty());
  EXPECT_TRUE(read("no item at all").texts.empty());
  EXPECT_TRUE(read(R"({"question": 3, "answer": null})").texts.empty());
}

TEST(ParseChoice, ReadsLettersAndWholeOptions) {
  const std::vector<std::string> options{"a star", "a planet", "the Moon"};
  EXPECT_EQ(parse_choice("B", options), 1);
  EXPECT_EQ(parse_choice(" (c)", options), 2);
  EXPECT_EQ(parse_choice("The answer is B.", options), 1);
  EXPECT_EQ(parse_choice("A. a star", options), 0);
  EXPECT_EQ(parse_choice("the moon.", options), 2);
  EXPECT_EQ(parse_choice("**B**", options), 1);
  EXPECT_FALSE(parse_choice("A. or B.", options));
  EXPECT_FALSE(parse_choice("A good question, I think", options));
  EXPECT_FALSE(parse_choice("D", options));
  EXPECT_FALSE(parse_choice("unanswerable", options));
}

}  // namespace
}  // namespace potstill
