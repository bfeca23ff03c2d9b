#include "potstill/synth/contamination.h"

#include <gtest/gtest.h>

namespace potstill {
namespace {

ContaminationIndex two_rows() {
  ContaminationIndex index;
  index.add({.where = "tools:1",
             .question = "Which tool is used to find the mass of a stone?",
             .options = {"a balance", "a ruler", "a clock", "a cup"},
             .answer = "a balance"});
  index.add({.where = "story:1",
             .question =
                 "On a cold morning in the far north two old friends walked slowly along the frozen river to the town",
             .options = {"and sang", "and slept"},
             .answer = "and sang"});
  index.add({.where = "stem:1", .question = "Which is true?", .options = {"it is", "it is not"}, .answer = "it is"});
  return index;
}

std::string matcher(const BenchmarkItem& pair) {
  const auto match = two_rows().match(pair);
  return match ? match->matcher : "";
}

TEST(Contamination, FindsThirteenWordsInARowWhateverStandsAroundThem) {
  EXPECT_EQ(matcher({.question =
                         "Read this. ON A COLD MORNING, in the far north, two old friends walked slowly along! Who?"}),
            "13-gram");
  EXPECT_EQ(matcher({.question = "In the far north two old friends walked slowly along the river"}), "") << "11 words";
}

TEST(Contamination, RunsGoOnFromTheQuestionIntoTheOptions) {
  EXPECT_EQ(matcher({.question = "Which tool is used to find the mass of a stone?",
                     .options = {"a balance", "a spoon"},
                     .answer = "a balance"}),
            "13-gram");
}

TEST(Contamination, FindsShortQuestionsByTheirWordsAndOptions) {
  EXPECT_EQ(matcher({.question = "which tool is used to find the mass of a stone", .answer = "scales"}),
            "same question");
  EXPECT_EQ(matcher({.question = "Which tool would be used to find the mass of a rock?",
                     .options = {"A balance.", "a thermometer", "a lamp", "a rope"},
                     .answer = "A balance."}),
            "near question");
  EXPECT_EQ(matcher({.question = "Which tool is used to find the mass of a pebble?",
                     .options = {"a ruler", "a clock", "scales", "a rope"},
                     .answer = "scales"}),
            "near question")
      << "half of the options";
  EXPECT_EQ(matcher({.question = "Which tool is used to find the length of a desk?",
                     .options = {"a tape", "a lamp", "a pen", "a rope"},
                     .answer = "a tape"}),
            "")
      << "the pattern alone is nobody's";
}

TEST(Contamination, AQuestionThatSaysNothingNeedsItsAnswers) {
  EXPECT_EQ(matcher({.question = "Which is true?", .options = {"iron rusts", "iron melts"}, .answer = "iron rusts"}),
            "");
  EXPECT_EQ(matcher({.question = "Which is true?", .options = {"it is", "it is not"}, .answer = "it is"}),
            "same question");
}

}  // namespace
}  // namespace potstill
