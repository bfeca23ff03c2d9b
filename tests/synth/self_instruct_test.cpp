#include "potstill/synth/self_instruct.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "potstill/base/error.h"
#include "potstill/base/log.h"
#include "potstill/base/rng.h"
#include "potstill/base/sha256.h"
#include "potstill/lm/scripted_model.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

// A folder of its own for each test, removed at the end.
class SelfInstruct : public testing::Test {
 protected:
  SelfInstruct()
      : folder_(fs::temp_directory_path() /
                fmt::format("potstill_synth_{}_{}", ::getpid(),
                            testing::UnitTest::GetInstance()->current_test_info()->name())) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    task_.name = "colours";
    task_.description = "the colours of things";
    task_.question_instruction = "Write a question that the fact answers.";
    task_.answer_instruction = "Answer with the fact.";
    task_.seeds = {
        {.topic = "grass", .fact = "Grass is green.", .question = "Which hue has grass?", .answer = "It is green."}};
    for (int i = 0; i < 40; ++i) {
      const std::string thing = kThings[static_cast<size_t>(i)];
      task_.subtopics.push_back({.name = thing, .facts = {fmt::format("Every {} shines in shade {}.", thing, thing)}});
    }
    task_.rubric = {{.name = "faithful", .measure = "likelihood", .worst = -2.0, .best = 0.0}};
    task_.filter.max_rouge = 0.9;  // the scripted sentences differ in one word
    set_verbosity(Verbosity::kQuiet);
    config_.pairs = 20;
    config_.batch = 7;  // no divisor of anything here
  }
  ~SelfInstruct() override { fs::remove_all(folder_); }

  static constexpr const char* kThings[40] = {
      "apple",  "bench",  "candle", "desert", "engine", "feather", "garden", "hammer", "island", "jacket",
      "kettle", "ladder", "mirror", "needle", "orchid", "pencil",  "quartz", "rocket", "saddle", "teapot",
      "urchin", "velvet", "window", "yogurt", "zipper", "anchor",  "bottle", "carpet", "dragon", "eraser",
      "falcon", "goblet", "helmet", "igloo",  "jungle", "kitten",  "lizard", "magnet", "napkin", "oyster"};

  static std::string thing_in(const std::string& prompt) {
    const size_t at = prompt.rfind("Every ") + 6;
    return prompt.substr(at, prompt.find(' ', at) - at);
  }

  // A teacher that works well for most things: bad questions about some, bad answers about others, none likely for
  // "o…".
  static ScriptedModel good_teacher() {
    ScriptedModel model;
    model.on_generate = [](const GenerateRequest& request) {
      const std::string thing = thing_in(request.prompt);
      GenerateResult result;
      result.tokens.resize(5);
      result.prompt_tokens = 11;
      if (request.prompt.ends_with("Question:")) {
        result.text = thing[0] == 'k' ? " No question about it" : fmt::format(" Which shade has the {}?", thing);
      } else {
        result.text =
            thing[0] == 'l' ? " I cannot answer that." : fmt::format(" Every {0} shines in shade {0} alone.", thing);
        if (thing[0] == 'l') return result;
        result.text = fmt::format(" It shines in the shade of every {}.", thing);
        if (thing[0] == 'm') result.finish = FinishReason::kLength;
      }
      return result;
    };
    model.on_score = [](const ScoreRequest& request) {
      const std::string thing = thing_in(request.context);
      const double nats = thing[0] == 'o' ? -5.0 : -0.01 * static_cast<double>(thing[1] - 'a');
      return ScoreResult{.log_likelihood = 4 * nats, .is_greedy = false, .num_tokens = 4};
    };
    return model;
  }

  // Everything that a run leaves, as bytes.
  std::string run(ScriptedModel& model, const std::string& journal = "journal.jsonl") {
    AnswerStore store(model, folder_ / journal, config_.batch);
    const SynthOutcome outcome = self_instruct(task_, config_, /*seed=*/3, {.teacher = store});
    num_asked_ = store.num_asked();
    std::string bytes;
    for (const auto* list : {&outcome.accepted, &outcome.rejected}) {
      for (const auto& candidate : *list) bytes += to_record(candidate, task_, {.teacher = model.name()}).dump() + "\n";
    }
    store.write_used(folder_ / "raw.jsonl");
    outcome_ = outcome;
    return bytes + read_file(folder_ / "raw.jsonl");
  }

  fs::path folder_;
  Task task_;
  SynthConfig config_;
  SynthOutcome outcome_;
  int64_t num_asked_ = 0;
};

TEST_F(SelfInstruct, AcceptsWhatPassesAndSaysWhyTheRestDoesNot) {
  auto model = good_teacher();
  config_.pairs = 24;
  run(model);
  EXPECT_EQ(outcome_.accepted.size(), 24u);
  const auto yield = outcome_.yield();
  EXPECT_EQ(yield["candidates"], outcome_.accepted.size() + outcome_.rejected.size());
  for (const char* rule : {"format", "refusal", "truncated", "low_score"}) {
    EXPECT_GT(yield["rules"].value(rule, 0), 0) << rule << "\n" << outcome_.yield_table();
  }
  std::set<std::string> ids;
  for (const auto& candidate : outcome_.accepted) {
    EXPECT_FALSE(candidate.refusal);
    EXPECT_TRUE(ids.insert(candidate.id).second);
    const auto record = to_record(candidate, task_, {.teacher = "scripted"});
    EXPECT_EQ(record["instruction"], candidate.pair.question);
    EXPECT_EQ(record["input"], "");
    EXPECT_EQ(record["output"], candidate.pair.answer);
    EXPECT_TRUE(record["split"] == "train" || record["split"] == "heldout");
    EXPECT_EQ(record["raw"]["answer"]["key"].get<std::string>().size(), 64u);
  }
}

TEST_F(SelfInstruct, KeepsTheBestByScore) {
  auto model = good_teacher();
  config_.pairs = 10;
  config_.surplus = 1.0;
  run(model);
  double worst_kept = 5.0, best_left = 1.0;
  for (const auto& candidate : outcome_.accepted) worst_kept = std::min(worst_kept, candidate.scores.at("score"));
  for (const auto& candidate : outcome_.rejected) {
    if (candidate.refusal->rule == "not_needed") best_left = std::max(best_left, candidate.scores.at("score"));
  }
  EXPECT_GT(best_left, 1.0);
  EXPECT_GE(worst_kept, best_left);
}

TEST_F(SelfInstruct, SameBytesWhateverTheOrderOfAnswersAndTheBatch) {
  auto model = good_teacher();
  const std::string expected = run(model, "a.jsonl");
  for (uint64_t seed = 0; seed < 3; ++seed) {
    auto shuffled = good_teacher();
    Rng rng(seed, "order");
    shuffled.order = [&rng](size_t size) {
      std::vector<size_t> indices(size);
      std::iota(indices.begin(), indices.end(), size_t{0});
      rng.shuffle(indices);
      return indices;
    };
    config_.batch = static_cast<int64_t>(1 + 5 * seed);
    EXPECT_EQ(run(shuffled, fmt::format("b{}.jsonl", seed)), expected) << "seed " << seed;
  }
}

TEST_F(SelfInstruct, GoesOnWhereItWasKilledAndAsksNothingTwice) {
  auto whole = good_teacher();
  const std::string expected = run(whole, "whole.jsonl");
  for (const int64_t kill_at : {0, 1, 6, 7, 20, 55, 90}) {
    auto model = good_teacher();
    const std::string journal = fmt::format("killed{}.jsonl", kill_at);
    model.fail_after = kill_at;
    ASSERT_LT(kill_at, whole.num_answers);
    EXPECT_THROW(run(model, journal), std::runtime_error);
    if (kill_at > 0) {  // and the kill tore the line that was being written
      const auto path = folder_ / journal;
      std::string text = read_file(path);
      text += R"({"key": "to)";
      write_file_atomically(path, text);
    }
    model.fail_after = -1;
    EXPECT_EQ(run(model, journal), expected) << "killed after " << kill_at;
    int64_t generated_twice = 0;
    for (const auto& [text, times] : model.times_asked) generated_twice += text.starts_with("generate") && times > 1;
    EXPECT_EQ(generated_twice, 0) << "killed after " << kill_at;
    EXPECT_EQ(run(model, journal), expected);
    EXPECT_EQ(num_asked_, 0) << "all is on the disk";
  }
}

TEST_F(SelfInstruct, ChangedThresholdFiltersAgainWithoutAsking) {
  auto model = good_teacher();
  run(model);
  ASSERT_GE(outcome_.accepted.size(), 20u);
  const auto best = outcome_.accepted.front().scores.at("score");
  config_.pairs = 5;
  config_.max_rounds = 1;
  task_.filter.min_score = 4.8;
  run(model);
  EXPECT_EQ(num_asked_, 0);
  EXPECT_GT(outcome_.yield()["rules"].value("low_score", 0), 0);
  for (const auto& candidate : outcome_.accepted) EXPECT_GE(candidate.scores.at("score"), 4.8) << best;
}

TEST_F(SelfInstruct, ChangedPromptAsksOnlyForWhatItTouches) {
  auto model = good_teacher();
  run(model);
  const int64_t first = num_asked_;
  task_.answer_instruction = "Answer with the fact, please.";
  run(model);
  int64_t questions_again = 0;
  for (const auto& [text, times] : model.times_asked) {
    if (text.starts_with("generate") && text.find("Write a question") != std::string::npos)
      questions_again += times > 1;
  }
  EXPECT_EQ(questions_again, 0);
  EXPECT_GT(num_asked_, 0);
  EXPECT_LT(num_asked_, first);
  EXPECT_EQ(model.num_answers, first + num_asked_);
}

TEST_F(SelfInstruct, AnotherModelIsAskedAnew) {
  auto model = good_teacher();
  run(model);
  model.model_name = "another";
  run(model);
  EXPECT_GT(num_asked_, 0);
}

TEST_F(SelfInstruct, GarbageTeacherEndsWithTheYieldAndNotInALoop) {
  ScriptedModel model;
  model.on_generate = [](const GenerateRequest& request) {
    GenerateResult result;
    result.text = request.sampling.seed % 2 == 0 ? "asdf asdf asdf asdf" : "";
    return result;
  };
  run(model);
  EXPECT_EQ(outcome_.rounds, config_.max_rounds);
  EXPECT_TRUE(outcome_.accepted.empty());
  try {
    require_enough_pairs(task_, config_, outcome_);
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    const std::string what = error.what();
    EXPECT_NE(what.find("0 acceptable pairs of the 20"), std::string::npos) << what;
    EXPECT_NE(what.find("refused: format"), std::string::npos) << what;
  }
}

TEST_F(SelfInstruct, OneQuestionForeverIsADuplicate) {
  auto model = good_teacher();
  const auto answer = model.on_generate;
  model.on_generate = [answer](const GenerateRequest& request) {
    auto result = answer(request);
    if (request.prompt.ends_with("Question:")) result.text = " Which shade has every thing?";
    return result;
  };
  task_.filter.min_grounding = 0.0;
  run(model);
  EXPECT_LE(outcome_.accepted.size(), 1u);
  EXPECT_GT(outcome_.yield()["rules"].value("duplicate", 0), 30);
}

TEST_F(SelfInstruct, SubtopicsComeFromTheTeacherWhenTheTaskNamesNone) {
  task_.subtopics.clear();
  task_.seeds[0].fact.clear();
  auto model = good_teacher();
  model.on_generate = [](const GenerateRequest& request) {
    GenerateResult result;
    if (request.prompt.starts_with("List")) {
      result.text = " apples\n2. pears\n3. plums\n4. apples\n5. chopped off he";
      result.finish = FinishReason::kLength;
    } else {
      const size_t at = request.prompt.rfind("Topic: ");
      const std::string topic =
          at == std::string::npos ? "" : request.prompt.substr(at + 7, request.prompt.find('\n', at) - at - 7);
      result.text = request.prompt.ends_with("Question:")
                        ? fmt::format(" Which colour is number {} of {}?", request.sampling.seed % 97, topic)
                        : " Red and yellow, mostly.";
    }
    return result;
  };
  task_.rubric.clear();
  config_.pairs = 2;
  run(model);
  EXPECT_EQ(outcome_.num_subtopics, 3);
  std::set<std::string> topics;
  for (const auto& candidate : outcome_.accepted) topics.insert(candidate.pair.unit.subtopic);
  EXPECT_EQ(topics.size(), outcome_.accepted.size()) << "one pair a subtopic before a second";

  model.on_generate = [](const GenerateRequest&) { return GenerateResult{}; };
  model.model_name = "mute";
  EXPECT_THROW(run(model), Error);
}

TEST_F(SelfInstruct, CritiqueInJsonDecidesAndUnreadableOnesDoNotPass) {
  auto model = good_teacher();
  const auto answer = model.on_generate;
  model.on_generate = [answer](const GenerateRequest& request) {
    if (request.messages.empty()) return answer(request);
    GenerateResult result;
    const std::string thing = thing_in(request.messages[0].content);
    result.text = thing[0] == 'a'   ? "It is quite good!"
                  : thing[0] == 'b' ? R"({"right": 2, "reason": "wrong shade"})"
                                    : R"(Sure: {"right": 5, "reason": "fine"})";
    return result;
  };
  task_.rubric = {{.name = "right",
                   .measure = "rating",
                   .question = "Is it right?",
                   .anchors = {"no", "hardly", "half", "mostly", "yes"},
                   .least = 4.0}};
  config_.critique = "json";
  config_.pairs = 25;
  run(model);
  const auto refused = outcome_.yield()["rules"];
  EXPECT_GT(refused.value("no_critique", 0), 0) << outcome_.yield_table();
  EXPECT_GT(refused.value("low_right", 0), 0);
  EXPECT_FALSE(outcome_.accepted.empty());
  for (const auto& candidate : outcome_.accepted) EXPECT_EQ(candidate.critique, "fine");
}

TEST_F(SelfInstruct, RatingIsTheExpectedValueOfTheScoreToken) {
  auto model = good_teacher();
  model.on_choose = [](const ChoiceRequest&) { return std::vector<double>{0.0, 0.0, 0.25, 0.25, 0.5}; };
  task_.rubric = {{.name = "right",
                   .measure = "rating",
                   .question = "Is it right?",
                   .anchors = {"no", "hardly", "half", "mostly", "yes"}}};
  run(model);
  ASSERT_FALSE(outcome_.accepted.empty());
  EXPECT_DOUBLE_EQ(outcome_.accepted[0].scores.at("right"), 4.25);
}

TEST_F(SelfInstruct, NanFromTheModelStopsTheRun) {
  auto model = good_teacher();
  model.on_score = [](const ScoreRequest&) {
    return ScoreResult{.log_likelihood = std::nan(""), .is_greedy = false, .num_tokens = 1};
  };
  try {
    run(model);
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kNumeric);
  }
}

TEST_F(SelfInstruct, BrokenJournalIsNamedByLine) {
  for (const char* line :
       {"{}", "{\"key\": 3}", R"({"key":"k","kind":"generate","response":{"text":7}})",
        R"({"key":"k","kind":"score","response":{"log_likelihood":"x","num_tokens":1,"is_greedy":true}})",
        R"({"key":"k","kind":"choose","response":{"probabilities":[null]}})", "not json"}) {
    write_file_atomically(folder_ / "bad.jsonl", std::string(line) + "\n");
    auto model = good_teacher();
    try {
      run(model, "bad.jsonl");
      FAIL() << "accepted " << line;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("bad.jsonl:1"), std::string::npos) << error.what();
    }
  }
}

TEST(SplitHeldout, KeepsAFactOnOneSideAndAPairOnItsSide) {
  std::vector<Candidate> pairs;
  for (int i = 0; i < 200; ++i) {
    Candidate candidate;
    candidate.pair.unit.fact = fmt::format("fact {}", i / 2);
    candidate.pair.question = fmt::format("question {}", i);
    pairs.push_back(candidate);
  }
  split_heldout(pairs, 0.2);
  int64_t heldout = 0;
  for (size_t i = 0; i < pairs.size(); i += 2) {
    EXPECT_EQ(pairs[i].heldout, pairs[i + 1].heldout);
    heldout += 2 * pairs[i].heldout;
  }
  EXPECT_GT(heldout, 20);
  EXPECT_LT(heldout, 60);
  std::vector<Candidate> fewer(pairs.begin(), pairs.begin() + 100);
  for (auto& candidate : fewer) candidate.heldout = false;
  split_heldout(fewer, 0.2);
  for (size_t i = 0; i < fewer.size(); ++i) EXPECT_EQ(fewer[i].heldout, pairs[i].heldout);
}

TEST(SplitHeldout, HoldsOutEightOrHalfEvenOfFewPairs) {
  for (const size_t count : {2, 5, 12, 20}) {
    std::vector<Candidate> pairs(count);
    for (size_t i = 0; i < count; ++i) pairs[i].pair.question = fmt::format("question {}", i);
    split_heldout(pairs, 0.01);
    EXPECT_GE(std::ranges::count(pairs, true, &Candidate::heldout),
              static_cast<int64_t>(std::min<size_t>(8, count / 2)));
    EXPECT_LT(std::ranges::count(pairs, true, &Candidate::heldout), static_cast<int64_t>(count));
  }
}

}  // namespace
}  // namespace potstill
