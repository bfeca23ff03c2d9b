#include "potstill/synth/filters.h"

#include <gtest/gtest.h>

#include "potstill/synth/novelty.h"
#include "potstill/synth/words.h"

namespace potstill {
namespace {

Task science() {
  Task task;
  task.name = "science";
  task.forbidden = {"click here"};
  return task;
}

std::string question_rule(std::string_view question, bool truncated = false) {
  const auto refusal = refuse_question(science(), question, truncated);
  return refusal ? refusal->rule : "";
}

std::string answer_rule(const PairText& pair, bool truncated = false) {
  const auto refusal = refuse_answer(science(), pair, truncated);
  return refusal ? refusal->rule : "";
}

struct QuestionCase {
  const char *rule, *refused, *kept;
};

// Each rule with a question that it must refuse and a near one that nothing may refuse.
TEST(RefuseQuestion, EachRuleRefusesItsCaseAndKeepsANearOne) {
  const QuestionCase cases[] = {
      {"format", "Ice floats on water.", "Why does ice float on water?"},
      {"format", "What is ice? What is snow?", "What are ice and snow?"},
      {"format", "why does ice float?", "Why does ice float?"},
      {"format", "", "What is it?"},
      {"format", "What is ice? A) water B) air?", "What is ice made of?"},
      {"format", "What is **ice**, really?", "What is ice, really?"},
      {"format", "Where does http://x.org lead?", "Where does the river lead?"},
      {"length", "Why ice?", "Why does ice?"},
      {"length",
       "Why one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
       "eighteen nineteen twenty one two three four five six seven eight nine ten?",
       "Why one two three four five six seven eight nine ten?"},
      {"charset", "What is \xE5\x86\xB0 made of?", "What is caf\xC3\xA9 au lait \xE2\x80\x93 coffee?"},
      {"charset", "What is \xFF made of?",
       "What is 5\xC2\xB0"
       "C?"},
      {"charset", "What is \x01 made of?", "What is iron made of?"},
      {"self_reference", "As an AI, what are you?", "What is an air pump?"},
      {"refusal", "I'm sorry, what is ice?", "Is ice a solid?"},
      {"prompt_talk", "What does the fact say about ice?", "What does ice do in the Sun?"},
      {"prompt_talk", "What is shown in the picture of ice?", "What does a lens do?"},
      {"forbidden", "What do you see when you click here?", "What makes a latch click?"},
      {"agreement", "What does plant roots do?", "What do plant roots do?"},
      {"agreement", "Why do ice floats?", "Why do birds fly?"},
      {"agreement", "What is the lungs?", "What is Mars?"},
      {"agreement", "What does wind turbines use?", "What does a wind turbine use?"},
      {"loop", "Why is ice is ice is ice is cold?", "Why is ice cold and steam hot?"},
      {"loop", "Why why why does ice float?", "Why does ice float, and why does a stone sink?"},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(question_rule(c.refused), c.rule) << c.refused;
    EXPECT_EQ(question_rule(c.kept), "") << c.kept;
  }
  EXPECT_EQ(question_rule("Why does ice float?", /*truncated=*/true), "truncated");
}

struct AnswerCase {
  const char* rule;
  PairText refused, kept;
};

TEST(RefuseAnswer, EachRuleRefusesItsCaseAndKeepsANearOne) {
  const std::string_view fact = "Ice floats on water because ice is less dense than liquid water.";
  const std::string_view question = "Why does ice float on water?";
  const PairText good{fact, question, "Ice floats because it is less dense than liquid water."};
  const std::string_view no_air = "Sound cannot travel in space because there is no air.";
  const AnswerCase cases[] = {
      {"format", {fact, question, "It is less dense than liquid water"}, good},
      {"format", {fact, question, "is less dense than liquid water."}, good},
      {"format", {fact, question, "Is it less dense than water? It is."}, good},
      {"format", {fact, question, "Answer: it is less dense than liquid water, Answer: yes."}, good},
      {"length", {fact, question, "Less dense."}, good},
      {"refusal", {"", question, "I cannot say why ice is less dense."}, good},
      {"self_reference", {"", question, "As a language model, I find it less dense."}, good},
      {"prompt_talk", {fact, question, "The fact says ice is less dense than water."}, good},
      {"charset",
       {fact, question,
        "It is less \xEF\xBF\xBD"
        "dense than liquid water."},
       good},
      {"loop", {"", question, "It is less dense and it is less dense and so on."}, good},
      {"repeats_question", {"", question, "Ice floats on water."}, good},
      {"circular",
       {"", "What is a solid?", "A solid is a solid thing with its own shape."},
       {"", "What is a solid?", "A solid is a material with its own shape."}},
      {"answer_form", {"", question, "Its crystals are full of empty space."}, good},
      {"answer_form",
       {"", "What is a kidney?", "Kidneys clean the blood in our body."},
       {"", "What is a kidney?", "A kidney is an organ that cleans the blood."}},
      {"off_fact", {fact, "How many planets orbit Jupiter and Saturn?", "Ice is less dense than liquid water."}, good},
      {"ungrounded", {fact, question, "Ice floats because tiny bubbles of magic gas lift its crystals."}, good},
      {"numerals",
       {fact, question, "Ice floats because it is 9 times less dense than liquid water."},
       {"Ice is 9 percent less dense than water.", "Is ice less dense?",
        "Yes, ice is 9 percent less dense than water."}},
      {"negation",
       {no_air, "Can sound travel in space?", "Sound can travel in space because there is air."},
       {no_air, "Can sound travel in space?", "It cannot travel, because in space there is no air."}},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(answer_rule(c.refused), c.rule) << c.refused.answer;
    EXPECT_EQ(answer_rule(c.kept), "") << c.kept.answer;
  }
  EXPECT_EQ(answer_rule(good, /*truncated=*/true), "truncated");
}

Task choice_task() {
  Task task = science();
  task.answer_form = "multiple_choice";
  task.num_options = 4;
  task.filter.answer_shape = "phrase";
  task.filter.min_answer_words = 1;
  return task;
}

TEST(RefuseOptions, EachRuleRefusesItsCaseAndKeepsANearOne) {
  const Task task = choice_task();
  const auto rule = [&](std::string_view answer, const std::vector<std::string>& wrong) {
    const auto refusal = refuse_options(task, answer, wrong);
    return refusal ? refusal->rule : "";
  };
  EXPECT_EQ(rule("a pine tree", {"a field mouse", "a mushroom", "a snail"}), "");
  EXPECT_EQ(rule("a pine tree", {"a field mouse", "a mushroom"}), "options");
  EXPECT_EQ(rule("a pine tree", {"a field mouse", "A field mouse.", "a snail"}), "options");
  EXPECT_EQ(rule("a pine tree", {"a field mouse", "a Pine tree", "a snail"}), "options");
  EXPECT_EQ(rule("a pine tree", {"a field mouse", "all of the above", "a snail"}), "options");
  EXPECT_EQ(rule("a pine tree", {"a field mouse", "click here", "a snail"}), "forbidden");
  EXPECT_EQ(rule("a pine tree", {"a field mouse", "B) a mushroom", "a snail"}), "format");
  EXPECT_EQ(rule("a tree that makes all of its own food out of light and air", {"a mouse", "a bug", "a snail"}),
            "option_length");
  EXPECT_EQ(rule("A pine tree", {"a field mouse", "a mushroom", "a snail"}), "option_style");
  EXPECT_EQ(reason_of("option_style"), "unbalanced");
}

TEST(RefuseQuestion, ShapesOfOtherAnswerForms) {
  Task task = science();
  const auto rule = [&](std::string_view question) {
    const auto refusal = refuse_question(task, question, false);
    return refusal ? refusal->rule : "";
  };
  task.filter.question_shape = "gap";
  EXPECT_EQ(rule("The lamp did not fit into the box because _ was too tall."), "");
  EXPECT_EQ(rule("The lamp did not fit into the box because it was too tall."), "format");
  EXPECT_EQ(rule("The _ did not fit into the box because _ was too tall."), "format");
  task.filter.question_shape = "text";
  EXPECT_EQ(rule("A metal spoon in a cup of hot soup will soon"), "");
  EXPECT_EQ(rule("A spoon in the picture of hot _ will soon"), "format");
  EXPECT_EQ(rule("Der L\xC3\xB6"
                 "ffel ist in der Suppe und die Suppe ist zu warm"),
            "foreign");
  EXPECT_EQ(reason_of("foreign"), "language");
}

TEST(RefuseAnswer, ChoicesAndJson) {
  Task task = choice_task();
  task.choices = {"yes", "no"};
  EXPECT_FALSE(refuse_answer(task, {"", "Is ice cold?", "yes"}, false));
  EXPECT_EQ(refuse_answer(task, {"", "Is ice cold?", "maybe"}, false)->rule, "options");
  task = science();
  task.filter.answer_shape = "json";
  EXPECT_FALSE(refuse_answer(task, {"", "", R"({"event": "concert", "time": null})"}, false));
  EXPECT_EQ(refuse_answer(task, {"", "", R"({"event": "concert", "time":)"}, false)->rule, "format");
}

TEST(Forbidden, ExpressionsStandBetweenSlashes) {
  Task task = science();
  task.forbidden = {"/\\bgrade [0-9]+/", "click here"};
  EXPECT_EQ(refuse_question(task, "What do pupils of Grade 7 learn?", false)->rule, "forbidden");
  EXPECT_FALSE(refuse_question(task, "What do pupils of a high grade learn?", false));
}

TEST(RefuseAnswer, ThresholdsOfTheTaskDecide) {
  Task task = science();
  const PairText pair{"Ice is less dense than water.", "Why is ice less dense than water?",
                      "Ice floats since water weighs more than crystals."};
  ASSERT_EQ(refuse_answer(task, pair, false)->rule, "ungrounded");
  task.filter.min_grounding = 0.1;
  EXPECT_FALSE(refuse_answer(task, pair, false));
  task.filter.max_answer_words = 4;
  EXPECT_EQ(refuse_answer(task, pair, false)->rule, "length");
  task.filter = {};
  task.filter.charset = "any";
  EXPECT_FALSE(refuse_question(task, "What is \xE5\x86\xB0 made of?", false));
}

TEST(Novelty, RefusesTheSameQuestionInOtherWordsButNotTheSamePattern) {
  NoveltyPool pool(0.7, 0.8);
  const auto nearest = [&pool](const std::string& question, const std::string& answer) {
    return pool.nearest(question, question + " " + answer);
  };
  pool.add("What is a cloud?", "What is a cloud? A cloud is made of tiny drops of water.");
  EXPECT_TRUE(nearest("What are clouds?", "Clouds are made of drops."));
  EXPECT_TRUE(nearest("What is mist?", "Mist is a cloud, and a cloud is made of tiny drops of water."));
  EXPECT_FALSE(nearest("What is a fossil?", "A fossil is the print of a living thing."));
  EXPECT_FALSE(NoveltyPool(0.7, 0.8).nearest("What is a cloud?", "Drops."));
}

TEST(Novelty, MinHashFindsLongTextsWithTheirSentencesTurnedRound) {
  NoveltyPool pool(1.0, 0.7);  // ROUGE-L cannot see it: the order is another
  const std::string first = "Ducks swim well because they have webbed feet that push the water back. ";
  const std::string second = "Owls hunt at night since they can see and hear well in the dark forest.";
  pool.add("Text one?", first + second);
  EXPECT_TRUE(pool.nearest("Text two?", second + " " + first));
  EXPECT_FALSE(pool.nearest("Text two?", first + "Bears sleep through the winter when there is little food."));
}

TEST(Words, StemsMeetAcrossForms) {
  for (const auto& [a, b] : std::vector<std::pair<std::string, std::string>>{{"rocks", "rock"},
                                                                             {"pulling", "pull"},
                                                                             {"spinning", "spins"},
                                                                             {"moves", "moving"},
                                                                             {"bodies", "body"},
                                                                             {"earth's", "earth"}}) {
    EXPECT_EQ(stem(a), stem(b));
  }
  EXPECT_EQ(stem("gas"), "gas");
  EXPECT_EQ(stem("glass"), "glass");
  EXPECT_EQ(content_stems("What is the shape of the Moon?"), (std::vector<std::string>{"shap", "moon"}));
  EXPECT_TRUE(has_negation("It doesn't move."));
  EXPECT_FALSE(has_negation("It is a note."));
}

}  // namespace
}  // namespace potstill
