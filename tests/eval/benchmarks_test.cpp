#include "potstill/eval/benchmarks.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"
#include "potstill/eval/results_json.h"
#include "potstill/lm/scripted_model.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

class BenchmarksTest : public ::testing::Test {
 protected:
  BenchmarksTest() : folder_(fs::temp_directory_path() / ("potstill_eval_" + std::to_string(::getpid()))) {
    fs::remove_all(folder_);
    fs::create_directories(folder_ / "arc_easy");
    fs::create_directories(folder_ / "mmlu");
    std::string arc, mmlu;
    for (int i = 0; i < 200; ++i) {  // the right choice is the longest in three rows of four
      const bool longest = i % 4 != 0;
      arc += fmt::format(
          R"({{"id":"{}","question":"q{}","choices":{{"text":["a","bbbb"],"label":["1","2"]}},"answerKey":"{}"}})", i,
          i, longest ? "2" : "1");
      arc += "\n";
    }
    for (int i = 0; i < 30; ++i) {
      mmlu += fmt::format(R"({{"question":"q{}","subject":"{}","choices":["w","x","y","z"],"answer":{}}})", i,
                          i < 10 ? "virology" : "astronomy", i % 4);
      mmlu += "\n";
    }
    write_file_atomically(folder_ / "arc_easy" / "test.jsonl", arc);
    write_file_atomically(folder_ / "mmlu" / "test.jsonl", mmlu);
    model_.on_score = [](const ScoreRequest& request) {
      return ScoreResult{.log_likelihood = static_cast<double>(request.continuation.size()) - 20.0,
                         .is_greedy = request.continuation.size() > 3,
                         .num_tokens = 1};
    };
  }
  ~BenchmarksTest() override { fs::remove_all(folder_); }
  EvalConfig config(std::vector<std::string> tasks, int64_t limit = 0) const {
    EvalConfig config;
    config.tasks = std::move(tasks);
    config.data = folder_;
    config.limit = limit;
    return config;
  }
  fs::path folder_;
  ScriptedModel model_;
};

TEST_F(BenchmarksTest, SumUpWhatTheModelScored) {
  const auto results = run_benchmarks(model_, config({"arc_easy"}));
  const auto json = results_to_json(results);
  EXPECT_EQ(json["results"]["arc_easy"]["acc,none"], 0.75);
  EXPECT_EQ(json["results"]["arc_easy"]["sample_len"], 200);
  EXPECT_EQ(json["n-samples"]["arc_easy"]["original"], 200);
  EXPECT_EQ(json["versions"]["arc_easy"], 1.0);
  // -16 over 4 characters beats -18 over 1
  EXPECT_EQ(json["results"]["arc_easy"]["acc_norm,none"], 0.75);
  EXPECT_NEAR(json["results"]["arc_easy"]["acc_stderr,none"].get<double>(), std::sqrt(0.1875 / 199), 1e-15);
}

TEST_F(BenchmarksTest, LimitTakesTheFirstRows) {
  const auto results = run_benchmarks(model_, config({"arc_easy"}, 10));
  EXPECT_EQ(results.tasks[0].rows.size(), 10u);
  EXPECT_EQ(results.tasks[0].num_rows, 200);
  EXPECT_EQ(model_.num_answers, 20);
}

TEST_F(BenchmarksTest, GoOnInsideATaskAfterAKill) {
  const auto whole = results_to_json(run_benchmarks(model_, config({"arc_easy"})));
  ScriptedModel killed = model_;
  killed.num_answers = 0;
  killed.fail_after = 300;  // in the third chunk of 64 rows
  EXPECT_THROW(run_benchmarks(killed, config({"arc_easy"}), {.journal = folder_ / "journal"}), std::runtime_error);
  ScriptedModel again = model_;
  again.num_answers = 0;
  const auto resumed = results_to_json(run_benchmarks(again, config({"arc_easy"}), {.journal = folder_ / "journal"}));
  EXPECT_EQ(resumed, whole);
  EXPECT_EQ(again.num_answers, 2 * (200 - 128));  // 128 rows were in the journal

  ScriptedModel other = model_;
  other.num_answers = 0;
  other.model_name = "other weights";
  run_benchmarks(other, config({"arc_easy"}), {.journal = folder_ / "journal"});
  EXPECT_EQ(other.num_answers, 400);  // another model's rows do not count
}

TEST_F(BenchmarksTest, MmluIsSummedBySubjectAndGroup) {
  const auto results = run_benchmarks(model_, config({"mmlu"}));  // always answers A
  const auto json = results_to_json(results);
  EXPECT_DOUBLE_EQ(json["results"]["mmlu_virology"]["acc,none"], 0.3);
  EXPECT_DOUBLE_EQ(json["results"]["mmlu_astronomy"]["acc,none"], 0.25);
  EXPECT_DOUBLE_EQ(json["groups"]["mmlu"]["acc,none"], 8.0 / 30.0);
  EXPECT_EQ(json["group_subtasks"]["mmlu"], (nlohmann::ordered_json{"mmlu_stem", "mmlu_other"}));
  EXPECT_EQ(json["group_subtasks"]["mmlu_stem"], (nlohmann::ordered_json{"mmlu_astronomy"}));
}

TEST_F(BenchmarksTest, APartOfMmluIsATaskAsInTheHarness) {
  const auto subject = results_to_json(run_benchmarks(model_, config({"mmlu_virology"})));
  EXPECT_EQ(subject["results"].size(), 1u);
  EXPECT_DOUBLE_EQ(subject["results"]["mmlu_virology"]["acc,none"], 0.3);
  EXPECT_TRUE(!subject.contains("groups") || subject["groups"].empty());
  const auto group = results_to_json(run_benchmarks(model_, config({"mmlu_stem"})));
  EXPECT_DOUBLE_EQ(group["groups"]["mmlu_stem"]["acc,none"], 0.25);
  EXPECT_EQ(group["groups"].size(), 1u);
  EXPECT_FALSE(group["results"].contains("mmlu_virology"));
  EXPECT_THROW(find_task("mmlu_alchemy"), Error);
  EXPECT_THROW(run_benchmarks(model_, config({"mmlu_anatomy"})), Error);  // no row of it
}

TEST_F(BenchmarksTest, SamplesCarryWhatTheHarnessLogs) {
  const auto results = run_benchmarks(model_, config({"arc_easy"}, 1));
  const auto sample = sample_to_json(results.tasks[0], results.tasks[0].rows[0]);
  EXPECT_EQ(sample["doc"]["question"], "q0");
  EXPECT_EQ(sample["target"], "0");
  EXPECT_EQ(sample["arguments"]["gen_args_1"]["arg_1"], " bbbb");
  EXPECT_EQ(sample["filtered_resps"][1][1], "True");
  EXPECT_EQ(sample["acc"], 0.0);
  EXPECT_EQ(sample["doc_hash"].get<std::string>().size(), 64u);
}

TEST_F(BenchmarksTest, AbsentRowsAndForeignJournalsAreNamed) {
  EXPECT_THROW(run_benchmarks(model_, config({"piqa"})), Error);
  EXPECT_THROW(run_benchmarks(model_, config({})), Error);
  write_file_atomically(folder_ / "journal", "{\"step\": 1}\n");
  EXPECT_THROW(run_benchmarks(model_, config({"arc_easy"}), {.journal = folder_ / "journal"}), Error);
  EXPECT_EQ(model_.num_answers, 0);
}

}  // namespace
}  // namespace potstill
