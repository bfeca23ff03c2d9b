// The built-in tasks of the eight benchmark families against potstill/eval, which asks as lm-evaluation-harness does:
// what a pair teaches is, byte for byte, what the harness would ask if the pair were a row of the benchmark.
#include <gtest/gtest.h>

#include <string>

#include "potstill/eval/task.h"
#include "potstill/recipe/task_file.h"
#include "potstill/synth/render.h"

namespace potstill {
namespace {

using nlohmann::ordered_json;

Pair with_options(std::vector<std::string> options, int64_t key) {
  Pair pair;
  pair.options = std::move(options);
  pair.key = key;
  pair.answer = pair.options[static_cast<size_t>(key)];
  return pair;
}

// `row` says the same as `pair`, in the fields of the data set on the Hub.
void expect_same(const std::string& name, const Pair& pair, const ordered_json& row, const std::string& benchmark) {
  const Task task = read_task(std::filesystem::path(POTSTILL_SOURCE_DIR "/recipes/tasks") / (name + ".yaml"));
  const Question asked = find_task(std::string_view(benchmark)).ask({.doc = row, .where = "test"});
  ASSERT_EQ(static_cast<int64_t>(asked.choices.size()), task.options_of_a_pair());
  const auto requests = asked.requests();
  for (int64_t option = 0; option < task.options_of_a_pair(); ++option) {
    const Rendered rendered = render_pair(task, pair, option);
    EXPECT_EQ(rendered.instruction, requests[static_cast<size_t>(option)].context) << name;
    EXPECT_EQ(" " + rendered.output, requests[static_cast<size_t>(option)].continuation) << name;
    EXPECT_EQ(rendered.input, "") << name;
  }
  EXPECT_EQ(asked.gold, pair.key);
}

const ordered_json kLabels{"A", "B", "C", "D"};

TEST(TaskRendering, ArcEasy) {
  Pair pair = with_options({"a tree", "a snail", "a mouse", "a mushroom"}, 0);
  pair.question = "Which living thing makes its own food?";
  expect_same(
      "arc_easy", pair,
      {{"question", pair.question}, {"choices", {{"text", pair.options}, {"label", kLabels}}}, {"answerKey", "A"}},
      "arc_easy");
}

TEST(TaskRendering, OpenBookQa) {
  Pair pair = with_options({"float", "freeze", "burn a hand", "sing"}, 2);
  pair.question = "A metal spoon in hot soup will soon";
  expect_same(
      "openbookqa", pair,
      {{"question_stem", pair.question}, {"choices", {{"text", pair.options}, {"label", kLabels}}}, {"answerKey", "C"}},
      "openbookqa");
}

TEST(TaskRendering, CommonsenseQa) {
  Pair pair = with_options({"oven", "bread box", "sill", "rack", "sink"}, 1);
  pair.question = "Where would you put a loaf of bread?";
  expect_same("commonsense_qa", pair,
              {{"question", pair.question},
               {"choices", {{"text", pair.options}, {"label", {"A", "B", "C", "D", "E"}}}},
               {"answerKey", "B"}},
              "commonsense_qa");
}

TEST(TaskRendering, Mmlu) {
  Pair pair = with_options({"latitude", "height", "depth", "width"}, 3);
  pair.unit.subtopic = "high school geography";
  pair.question = "What do the lines on a map measure?";
  expect_same(
      "mmlu", pair,
      {{"question", pair.question}, {"subject", "high_school_geography"}, {"choices", pair.options}, {"answer", 3}},
      "mmlu");
}

TEST(TaskRendering, HellaSwag) {
  Pair pair = with_options({"He rubs the hood.", "He paints it.", "He drinks it.", "He rides away."}, 0);
  pair.unit.subtopic = "Washing a car";
  pair.question = "A man fills a bucket with soap and water. He dips a sponge into it.";
  expect_same("hellaswag", pair,
              {{"activity_label", "Washing a car"},
               {"ctx_a", pair.question},
               {"ctx_b", ""},
               {"endings", pair.options},
               {"label", "0"}},
              "hellaswag");
}

TEST(TaskRendering, Piqa) {
  Pair pair = with_options({"Lay a dry plate under it.", "Lay a damp cloth under it."}, 1);
  pair.question = "How to keep a board from slipping";
  expect_same("piqa", pair,
              {{"goal", pair.question}, {"sol1", pair.options[0]}, {"sol2", pair.options[1]}, {"label", 1}}, "piqa");
}

TEST(TaskRendering, SocialIqa) {
  Pair pair = with_options({"angry", "thankful", "bored"}, 1);
  pair.context = "Marta carried the bags of her neighbor upstairs.";
  pair.question = "How would the neighbor feel afterwards?";
  expect_same("social_iqa", pair,
              {{"context", pair.context},
               {"question", pair.question},
               {"answerA", "angry"},
               {"answerB", "thankful"},
               {"answerC", "bored"},
               {"label", "2"}},
              "siqa");
}

TEST(TaskRendering, WinoGrande) {
  Pair pair = with_options({"the box", "the lamp"}, 1);
  pair.question = "The lamp did not fit into the box because _ was too tall.";
  expect_same("winogrande", pair,
              {{"sentence", pair.question}, {"option1", "the box"}, {"option2", "the lamp"}, {"answer", "2"}},
              "winogrande");
}

// Rows of the training splits, in the field names of the Hub, become seeds that say the same.
TEST(TaskRendering, SeedRowsTakeTheHubsFields) {
  const std::filesystem::path data = POTSTILL_SOURCE_DIR "/../shared/data/benchmarks";
  if (!std::filesystem::exists(data)) GTEST_SKIP() << "no benchmark rows at " << data;
  for (const std::string name :
       {"arc_easy", "openbookqa", "commonsense_qa", "hellaswag", "piqa", "social_iqa", "winogrande", "mmlu"}) {
    const auto file = data / (name == "social_iqa" ? "siqa" : name) / (name == "mmlu" ? "dev.jsonl" : "train.jsonl");
    SynthConfig config;
    config.seeds = file.string();
    const Task task =
        read_task(std::filesystem::path(POTSTILL_SOURCE_DIR "/recipes/tasks") / (name + ".yaml"), config, 1);
    ASSERT_FALSE(task.seeds.empty()) << name;
    for (const auto& seed : task.seeds) {
      EXPECT_FALSE(seed.question.empty() || seed.answer.empty() || seed.topic.empty()) << name;
      EXPECT_EQ(static_cast<int64_t>(seed.wrong.size()) + 1, task.options_of_a_pair()) << name;
    }
  }
}

}  // namespace
}  // namespace potstill
