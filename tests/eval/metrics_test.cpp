#include "potstill/eval/metrics.h"

#include <gtest/gtest.h>

#include <cmath>

#include "potstill/base/jsonl.h"
#include "potstill/eval/python_text.h"

namespace potstill {
namespace {

Question question_of(std::vector<std::string> choices, int64_t gold) {
  Question question;
  question.choices = std::move(choices);
  question.gold = gold;
  return question;
}

TEST(Metrics, AccTakesTheHighestAndTheFirstOfEquals) {
  const auto question = question_of({"a", "b", "c"}, 1);
  EXPECT_EQ(predicted_choice(question, std::vector{-3.0, -1.0, -1.0}, false), 1);
  EXPECT_EQ(row_metric("acc", question, std::vector{-3.0, -1.0, -1.0}), 1.0);
  EXPECT_EQ(row_metric("acc", question, std::vector{-1.0, -1.0, -1.0}), 0.0);
}

// Lengths count characters: "ééé" has three, though six bytes.
TEST(Metrics, AccNormDividesByCharacters) {
  const auto question = question_of({"ééé", "abcd"}, 1);
  EXPECT_EQ(predicted_choice(question, std::vector{-3.0, -4.4}, true), 0);  // -1 against -1.1
  EXPECT_EQ(predicted_choice(question, std::vector{-3.0, -3.9}, true), 1);
  EXPECT_EQ(predicted_choice(question_of({"", "ab"}, 1), std::vector{-0.1, -9.0}, true), 1);
}

// statistics.mean and stdev / sqrt(n) of Python.
TEST(Metrics, StandardErrorIsThatOfTheSampleMean) {
  EXPECT_DOUBLE_EQ(mean(std::vector{1.0, 0.0, 1.0, 1.0}), 0.75);
  EXPECT_DOUBLE_EQ(standard_error(std::vector{1.0, 0.0, 1.0, 1.0}), 0.25);
  EXPECT_TRUE(std::isnan(standard_error(std::vector{1.0})));
}

TEST(MetricsGolden, SumsEqualTheHarness) {
  const auto golden = read_json_file(POTSTILL_SOURCE_DIR "/tests/golden/eval/harness.json");
  for (const auto& [name, task] : golden["tasks"].items()) {
    for (const auto& [metric, value] : task["rows"][0]["metrics"].items()) {
      std::vector<double> values;
      for (const auto& row : task["rows"]) values.push_back(row["metrics"][metric]);
      EXPECT_NEAR(mean(values), task["metrics"][metric + ",none"].get<double>(), 1e-15) << name;
      EXPECT_NEAR(standard_error(values), task["metrics"][metric + "_stderr,none"].get<double>(), 1e-15) << name;
    }
  }
}

// Two tasks of 4 and 6 rows by hand: (4·0.5 + 6·1) / 10; pooled variance 3·0.04·4 / (10 − 2).
TEST(Metrics, GroupsWeighTasksByTheirRows) {
  const std::vector<WeightedMetric> tasks{{.value = 0.5, .standard_error = 0.2, .count = 4},
                                          {.value = 1.0, .standard_error = 0.0, .count = 6}};
  const auto pooled = pool("acc", tasks);
  EXPECT_DOUBLE_EQ(pooled.value, 0.8);
  EXPECT_NEAR(pooled.standard_error, std::sqrt(3 * 0.04 * 4 / 8 / 10), 1e-15);
}

TEST(PythonText, DoesAsPythonDoes) {
  EXPECT_EQ(strip(" \t\xc2\x85 a b\xc2\xa0\xe3\x80\x80\x1c"), "a b");
  EXPECT_EQ(strip(" \n "), "");
  EXPECT_EQ(capitalize("élan VITAL McCoy"), "Élan vital mccoy");
  EXPECT_EQ(capitalize(""), "");
  EXPECT_EQ(num_characters("a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"), 4);
  EXPECT_EQ(replace_all("a   b    c", "  ", " "), "a  b  c");
}

}  // namespace
}  // namespace potstill
