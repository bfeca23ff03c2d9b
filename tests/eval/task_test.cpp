#include "potstill/eval/task.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"
#include "potstill/base/sha256.h"
#include "potstill/eval/benchmarks.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

Question ask(const char* task, const char* json) {
  return find_task(task).ask({.doc = nlohmann::ordered_json::parse(json), .where = "rows.jsonl:1"});
}

TEST(ArcEasy, AsksTheQuestionAndScoresEachChoiceAfterASpace) {
  const auto question = ask("arc_easy", R"({"id": "1", "question": "What is ice?", "choices": {"text":
      ["frozen water", "a metal", "a gas"], "label": ["A", "B", "C"]}, "answerKey": "A"})");
  const auto requests = question.requests();
  ASSERT_EQ(requests.size(), 3u);
  for (const auto& request : requests) EXPECT_EQ(request.context, "Question: What is ice?\nAnswer:");
  EXPECT_EQ(requests[0].continuation, " frozen water");
  EXPECT_EQ(requests[2].continuation, " a gas");
  EXPECT_EQ(question.gold, 0);
  EXPECT_EQ(question.example(), "Question: What is ice?\nAnswer: frozen water");
}

TEST(ArcEasy, TakesDigitLabelsAndFiveChoices) {
  const auto question = ask("arc_easy", R"({"question": "q", "choices": {"text": ["a", "b", "c", "d", "e"],
      "label": ["1", "2", "3", "4", "5"]}, "answerKey": "4"})");
  EXPECT_EQ(question.requests().size(), 5u);
  EXPECT_EQ(question.gold, 3);
}

TEST(ArcEasy, RefusesRowsThatLackSomething) {
  EXPECT_THROW(ask("arc_easy", R"({"question": "q", "answerKey": "A"})"), Error);
  EXPECT_THROW(ask("arc_easy", R"({"question": "q", "choices": {"text": ["a"], "label": ["A"]}, "answerKey": "B"})"),
               Error);
  EXPECT_THROW(ask("arc_easy", R"({"question": 3, "choices": {"text": ["a"], "label": ["A"]}, "answerKey": "A"})"),
               Error);
  EXPECT_THROW(ask("arc_easy", R"({"question": "q", "choices": {"text": [], "label": []}, "answerKey": "A"})"), Error);
  // More labels than choices: the answer would be a choice that is not there.
  EXPECT_THROW(
      ask("arc_easy", R"({"question": "q", "choices": {"text": ["a"], "label": ["A", "B"]}, "answerKey": "B"})"),
      Error);
}

TEST(Mmlu, DescribesTheSubjectAndAnswersByLetter) {
  const auto question = ask("mmlu", R"({"question": " 1 + 1? ", "subject": "elementary_mathematics",
      "choices": ["1", "2", "3", "4"], "answer": 1})");
  const auto requests = question.requests();
  EXPECT_EQ(requests[1].context,
            "The following are multiple choice questions (with answers) about elementary mathematics.\n\n"
            "1 + 1?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:");
  EXPECT_EQ(requests[1].continuation, " B");
  EXPECT_EQ(question.gold, 1);
}

TEST(HellaSwag, CleansMarksAndLowersTheRestOfTheSecondContext) {
  const auto question = ask("hellaswag", R"({"activity_label": "Roof [x] work", "ctx_a": "[header] How to [title] Go.",
      "ctx_b": "the Man in Paris", "endings": [" a [step] b ", "c", "d", "e"], "label": "2"})");
  // " [header] How" leaves two spaces, one of which goes; "[x]" likewise.
  EXPECT_EQ(question.requests()[0].context, "Roof work: How to. Go. The man in paris");
  EXPECT_EQ(question.requests()[0].continuation, " a b");
  EXPECT_EQ(question.gold, 2);
}

TEST(Winogrande, ScoresTheSameEndAfterEachOption) {
  const auto question = ask("winogrande", R"({"sentence": "Ann paid Eve because _ was kind. ", "option1": "Ann",
      "option2": "Eve", "answer": "2"})");
  const auto requests = question.requests();
  EXPECT_EQ(requests[0].context, "Ann paid Eve because Ann");
  EXPECT_EQ(requests[1].context, "Ann paid Eve because Eve");
  EXPECT_EQ(requests[0].continuation, " was kind.");
  EXPECT_EQ(requests[1].continuation, " was kind.");
  EXPECT_EQ(question.gold, 1);
  EXPECT_THROW(ask("winogrande", R"({"sentence": "no gap", "option1": "a", "option2": "b", "answer": "1"})"), Error);
}

TEST(Tasks, AreFoundByTheHarnessNameAndTheFolders) {
  EXPECT_EQ(find_task("siqa").name, "social_iqa");
  EXPECT_EQ(find_task("social_iqa").folder, "siqa");
  try {
    find_task("arc_esy");
    FAIL() << "not refused";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("did you mean 'arc_easy'"), std::string::npos) << error.what();
  }
}

TEST(Rows, AreSplitAtNewlinesOnlyAndNameTheBadLine) {
  const auto path = fs::temp_directory_path() / "potstill_rows_test.jsonl";
  write_file_atomically(path, "{\"a\":\"x\xc2\x85y\xe2\x80\xa8z\"}\n\n{\"a\":1}\n");
  EXPECT_EQ(read_rows(path).size(), 2u);
  write_file_atomically(path, "{\"a\":1}\n{\"a\":\n");
  try {
    read_rows(path);
    FAIL() << "not refused";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(":2"), std::string::npos) << error.what();
  }
  fs::remove(path);
}

// tests/golden/eval/harness.py: of each row, the harness's own hash and the hash of all that it asks.
TEST(HarnessGolden, RequestsEqualTheHarnessByteForByte) {
  const fs::path data = POTSTILL_SOURCE_DIR "/../shared/data/benchmarks";
  if (!fs::exists(data)) GTEST_SKIP() << "no benchmark rows at " << data;
  const auto golden = read_json_file(POTSTILL_SOURCE_DIR "/tests/golden/eval/harness.json");
  for (const auto& [name, expected] : golden["tasks"].items()) {
    const EvalTask task = find_task(name.starts_with("mmlu") ? "mmlu" : name);
    const auto rows = read_rows(data / task.folder / (task.split + ".jsonl"));
    ASSERT_GE(expected["rows"].size(), 50u);
    for (const auto& row : expected["rows"]) {
      const auto question = task.ask(rows.at(row["line"].get<size_t>() - 1));
      nlohmann::json requests = nlohmann::json::array();
      for (const auto& request : question.requests()) requests.push_back({request.context, request.continuation});
      EXPECT_EQ(sha256_hex(requests.dump()), row["requests_sha256"]) << name << " line " << row["line"];
      EXPECT_EQ(doc_hash(question.doc), row["doc_hash"]) << name << " line " << row["line"];
      if (!row["target"].is_null()) {
        EXPECT_EQ(question.target, row["target"]) << name << " line " << row["line"];
      }
      const std::vector<double> log_likelihoods = row["log_likelihoods"];
      for (const auto& [metric, value] : row["metrics"].items()) {
        EXPECT_EQ(row_metric(metric, question, log_likelihoods), value.get<double>())
            << name << " " << metric << " line " << row["line"];
      }
    }
  }
}

}  // namespace
}  // namespace potstill
