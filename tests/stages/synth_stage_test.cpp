#include "potstill/stages/synth_stage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"
#include "potstill/base/log.h"
#include "potstill/lm/scripted_model.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

// The teacher asks and answers after the number that the fact holds; even ones get answers that cannot be used.
ScriptedModel numbers_teacher() {
  ScriptedModel model;
  model.on_generate = [](const GenerateRequest& request) {
    const size_t at = request.prompt.rfind("box ") + 4;
    const std::string number = request.prompt.substr(at, request.prompt.find(' ', at) - at);
    GenerateResult result;
    result.tokens.resize(3);
    result.prompt_tokens = 10;
    const bool asks = request.prompt.ends_with("Question:");
    result.text = asks ? " What does box " + number + " hold?" : " The box " + number + " holds apples.";
    if (!asks && (number.back() - '0') % 2 == 0) result.text = " I cannot answer that.";
    return result;
  };
  return model;
}

class SynthStage : public testing::Test {
 protected:
  SynthStage()
      : folder_(fs::path(testing::TempDir()) / (std::string("potstill_synth_stage_") + std::to_string(::getpid()) +
                                                testing::UnitTest::GetInstance()->current_test_info()->name())) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    set_verbosity(Verbosity::kQuiet);
    task_.name = task_.description = "boxes";
    task_.question_instruction = "Write a question that the fact answers.";
    task_.answer_instruction = "Answer with the fact.";
    const TaskSeed seed{
        .topic = "bags", .fact = "A bag holds figs.", .question = "What is in a bag?", .answer = "Figs."};
    task_.seeds.push_back(seed);
    for (int i = 10; i < 40; ++i) {
      const std::string number = std::to_string(i);
      task_.subtopics.push_back({.name = number, .facts = {}});
      task_.subtopics.back().facts.push_back("The box " + number + " holds apples.");
    }
    task_.filter.max_rouge = 1.0;
    config_.pairs = 10;
  }
  ~SynthStage() override { fs::remove_all(folder_); }

  Artifact run(ScriptedModel& teacher, const std::string& name) {
    const StageKey key{.stage = "synth", .config = config_to_json(config_), .inputs = {}, .seed = 5};
    return run_stage(folder_ / name, key, IfExists::kReplace, [&](ArtifactWriter& out) {
      synthesize(task_, config_, {.teacher = teacher, .identity = "numbers"}, folder_ / "journal.jsonl", out);
    });
  }

  fs::path folder_;
  Task task_;
  SynthConfig config_;
};

TEST_F(SynthStage, LeavesPairsRefusalsAndWhatTheyRestOn) {
  auto teacher = numbers_teacher();
  const Artifact artifact = run(teacher, "a");
  std::map<std::string, int> splits;
  size_t pairs = 0;
  for (const auto& record : read_jsonl(folder_ / "a" / "D_gen.jsonl")) {
    EXPECT_THAT(record.value["output"].get<std::string>(), HasSubstr("holds apples"));
    ++splits[record.value["split"].get<std::string>()];
    ++pairs;
  }
  EXPECT_EQ(pairs, 10u);
  EXPECT_EQ(artifact.results()["pairs"], 10);
  EXPECT_EQ(artifact.results()["train_pairs"], splits["train"]);
  EXPECT_EQ(artifact.results()["heldout_pairs"], splits["heldout"]);
  EXPECT_GT(splits["heldout"], 0);
  size_t refused = 0;
  for (const auto& record : read_jsonl(folder_ / "a" / "rejected.jsonl")) {
    EXPECT_TRUE(record.value.contains("reason"));
    ++refused;
  }
  EXPECT_GT(refused, 0u);
  EXPECT_EQ(artifact.results()["yield"]["candidates"], pairs + refused);
  EXPECT_TRUE(fs::exists(folder_ / "a" / "raw.jsonl"));
}

TEST_F(SynthStage, AKilledRunAsksForNothingTwiceAndEndsWithTheSameBytes) {
  auto whole = numbers_teacher();
  run(whole, "whole");
  fs::remove(folder_ / "journal.jsonl");
  auto killed = numbers_teacher();
  killed.fail_after = 17;
  EXPECT_THROW(run(killed, "again"), std::runtime_error);
  EXPECT_FALSE(fs::exists(folder_ / "again"));
  auto resumed = numbers_teacher();
  run(resumed, "again");
  EXPECT_EQ(killed.num_answers + resumed.num_answers, whole.num_answers);
  for (const char* file : {"D_gen.jsonl", "rejected.jsonl", "raw.jsonl"}) {
    EXPECT_EQ(read_file(folder_ / "whole" / file), read_file(folder_ / "again" / file)) << file;
  }
}

TEST_F(SynthStage, TooFewPairsIsAnErrorWithTheYield) {
  auto teacher = numbers_teacher();
  config_.pairs = 1000;
  config_.max_rounds = 2;
  try {
    run(teacher, "few");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("refused: refusal"));
  }
  EXPECT_FALSE(fs::exists(folder_ / "few"));
}

}  // namespace
}  // namespace potstill
