// What surrounds a synth run: the rows that no pair may match, and the pairs printed for a reader.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "potstill/base/error.h"
#include "potstill/stages/audit.h"
#include "potstill/stages/benchmark_items.h"
#include "potstill/stages/report_stage.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class SynthFiles : public testing::Test {
 protected:
  SynthFiles()
      : folder_(fs::path(testing::TempDir()) / (std::string("potstill_synth_files_") + std::to_string(::getpid()) +
                                                testing::UnitTest::GetInstance()->current_test_info()->name())) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~SynthFiles() override { fs::remove_all(folder_); }
  void write(const std::string& name, const std::string& text) {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name) << text;
  }
  fs::path folder_;
};

std::string match_of(const ContaminationIndex& index, const std::string& question, const std::string& answer) {
  const auto match = index.match({.question = question, .answer = answer});
  return match ? match->where : "";
}

TEST_F(SynthFiles, ScoredRowsOfEveryFamilyAreReadAndTrainingRowsAreNot) {
  write(
      "arc_easy/test.jsonl",
      R"({"question": "Which tool weighs a heavy stone?", "choices": {"text": ["a scale", "a cup"], "label": ["1", "2"]}, "answerKey": "1"})"
      "\n");
  write(
      "arc_easy/train.jsonl",
      R"({"question": "Which tool measures a long rope?", "choices": {"text": ["a tape", "a cup"], "label": ["A", "B"]}, "answerKey": "A"})"
      "\n");
  write("piqa/validation.jsonl",
        R"({"goal": "open a stuck jar lid", "sol1": "use warm water", "sol2": "use ice", "label": 0})"
        "\n");
  write(
      "siqa/validation.jsonl",
      R"({"context": "Kim helped Lee move house.", "question": "How would Lee feel?", "answerA": "glad", "answerB": "sad", "answerC": "cold", "label": "1"})"
      "\n");
  write(
      "winogrande/validation.jsonl",
      R"({"sentence": "The lamp was too big for the narrow box so _ stayed out.", "option1": "lamp", "option2": "box", "answer": "1"})"
      "\n");
  write("my_exam/questions.jsonl", R"({"text": "Which of our seven pumps stands behind the old boiler?", "n": 3})"
                                   "\n");
  const auto index = read_benchmark_items(folder_);
  EXPECT_EQ(index.size(), 5u);
  EXPECT_EQ(match_of(index, "Which tool weighs a heavy stone?", "a scale"), "arc_easy/test.jsonl:1");
  EXPECT_EQ(match_of(index, "Which tool measures a long rope?", "a tape"), "");
  EXPECT_EQ(match_of(index, "open a stuck jar lid", "use warm water"), "piqa/validation.jsonl:1");
  EXPECT_EQ(match_of(index, "Kim helped Lee move house. How would Lee feel?", "glad"), "siqa/validation.jsonl:1");
  EXPECT_EQ(match_of(index, "Which of our seven pumps stands behind the old boiler?", "the third"),
            "my_exam/questions.jsonl:1");
}

TEST_F(SynthFiles, AFolderWithoutRowsIsAnErrorAndNoneIsNone) {
  EXPECT_THROW(read_benchmark_items(folder_), Error);
  EXPECT_THROW(decontamination_folder((folder_ / "nowhere").string()), Error);
  EXPECT_EQ(decontamination_folder("none"), fs::path());
  EXPECT_EQ(decontamination_folder(folder_.string()), folder_);
}

// Rows of a training split that are known to stand in the scored split too (shared/data/README.md) are all found.
TEST_F(SynthFiles, KnownRepeatsBetweenTrainingAndScoredRowsAreFound) {
  const fs::path data = POTSTILL_SOURCE_DIR "/../shared/data/benchmarks/arc_easy";
  if (!fs::exists(data)) GTEST_SKIP() << "no benchmark rows at " << data;
  fs::create_directories(folder_ / "arc_easy");
  fs::copy_file(data / "test.jsonl", folder_ / "arc_easy/test.jsonl");
  const auto scored = read_benchmark_items(folder_);
  fs::remove(folder_ / "arc_easy/test.jsonl");
  fs::copy_file(data / "train.jsonl", folder_ / "arc_easy/validation.jsonl");  // read as rows of its own
  std::ifstream rows(folder_ / "arc_easy/validation.jsonl"), tests(data / "test.jsonl");
  std::set<std::string> questions;
  for (std::string line; std::getline(tests, line);) {
    questions.insert(nlohmann::json::parse(line)["question"].get<std::string>());
  }
  int repeated = 0, found = 0, others = 0;
  for (std::string line; std::getline(rows, line);) {
    const auto row = nlohmann::json::parse(line);
    BenchmarkItem item{.question = row["question"].get<std::string>(),
                       .options = row["choices"]["text"].get<std::vector<std::string>>()};
    const auto& labels = row["choices"]["label"];
    for (size_t i = 0; i < labels.size(); ++i) {
      if (labels[i] == row["answerKey"]) item.answer = item.options[i];
    }
    const bool is_repeat = questions.contains(item.question), matches = scored.match(item).has_value();
    repeated += is_repeat;
    found += is_repeat && matches;
    others += !is_repeat && matches;
  }
  EXPECT_EQ(repeated, 6) << "of the eight in the whole test split those that are here";
  EXPECT_EQ(found, repeated);
  EXPECT_LT(others, 60) << "near repeats: of 2,251 rows a few in a hundred";
}

TEST_F(SynthFiles, AuditShowsWhatIsKnownOfAPair) {
  std::string lines;
  for (int i = 0; i < 30; ++i) {
    lines +=
        R"({"instruction": "Question: number )" + std::to_string(i) +
        R"(?\nAnswer:", "input": "", "output": "a star", "id": "x", "subtopic": "space", "split": "train", "choices": ["a car", "a star"],)"
        R"( "answer_key": "B", "scores": {"score": 4.5}, "blind": {"agreement": 0.8, "answer": "a star"}, "critique": "good",)"
        R"( "raw": {"question": {"place": "raw.jsonl:7", "key": "k"}}})"
        "\n";
  }
  write("D_gen.jsonl", lines);
  const std::string text = audit_text(folder_, 20, 1);
  EXPECT_THAT(text, AllOf(HasSubstr("20 of 30 pairs"), HasSubstr("→ B. a star"), HasSubstr("score 4.50"),
                          HasSubstr("agreement 0.80"), HasSubstr("critique  good"), HasSubstr("raw.jsonl:7")));
  EXPECT_EQ(text, audit_text(folder_, 20, 1));
  EXPECT_NE(text, audit_text(folder_, 20, 2));
  EXPECT_THAT(audit_text(folder_, 99, 1), HasSubstr("30 of 30 pairs"));
}

TEST_F(SynthFiles, TheReportHoldsAllPairsAndTheRefusedByReasonAndRule) {
  write(
      "run/synth/artifact.json",
      R"({"results": {"yield": {"candidates": 4, "refused": {"format": 2}}, "rounds": 1}, "measured": {"seconds": 2.0}})");
  write("run/synth/D_gen.jsonl",
        R"({"instruction": "Why?", "input": "", "output": "So </script> it is.", "scores": {"score": 4.5}})"
        "\n");
  write(
      "run/synth/rejected.jsonl",
      R"({"instruction": "How", "output": "", "reason": "format", "rule": "truncated", "detail": "cut", "raw": {"question": {}}})"
      "\n"
      R"({"instruction": "Who", "output": "", "reason": "format", "rule": "loop", "detail": "again"})"
      "\n");
  const StageKey key{.stage = "report", .config = {}, .inputs = {}, .seed = 1};
  run_stage(folder_ / "run/report", key, IfExists::kReplace, [&](ArtifactWriter& out) {
    run_report_stage({.name = "r", .description = "", .command = "", .run_dir = folder_ / "run"}, out);
  });
  std::ifstream file(folder_ / "run/report/report.html");
  const std::string page((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  // Not HasSubstr: a failure would print the whole page, megabytes of plotly.
  for (const std::string_view part :
       {R"("rules_by_reason":{"format":{"truncated":1,"loop":1}})", R"(So <\/script> it is.)", R"("detail":"again")"}) {
    EXPECT_NE(page.find(part), std::string::npos) << "the page lacks " << part;
  }
}

}  // namespace
}  // namespace potstill
