#include "potstill/eval/diagnose.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <map>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

class DiagnoseTest : public ::testing::Test {
 protected:
  DiagnoseTest() : run_(fs::temp_directory_path() / ("potstill_diagnose_" + std::to_string(::getpid()))) {
    fs::remove_all(run_);
    put("search/artifact.json", R"({"results":{"best":{"train":{"alpha":1.0}}}})");
    put("train/artifact.json",
        R"({"results":{"final_loss":2.0,"held_out_before":{"kl":2.6},"held_out":{"kl":1.1}},"config":{"alpha":0.5}})");
    put("train/train_log.jsonl",
        "{\"held_out\":{\"kl\":1.5}}\n{\"loss\":1}\n{\"held_out\":{\"kl\":1.2}}\n{\"held_out\":{\"kl\":1.1}}\n");
    put("teach/knowledge.json", R"({"vocabulary":49152,"chat_template":"Alpaca"})");
    put("merge/tokenizer_config.json", R"({"chat_template":""})");
    put("merge/artifact.json", R"({"results":{"proof":{"rms_adapter_effect":3.4,"rms_logit_difference":0.004}}})");
    put("quantize/artifact.json",
        R"({"results":{"calibration":{"sequences":52,"sequences_asked":128,"tokens":2622,"distinct_tokens":367}}})");
    put("rows.jsonl", "{\"question\":\"Which gas do plants take in from the air?\"}\n");
    put_evaluation(0.500, 0.495);
    put("synth/D_gen.jsonl", "{\"instruction\":\"What do penguins do to stay warm in winter?\"}\n");
  }
  ~DiagnoseTest() override { fs::remove_all(run_); }

  void put(const std::string& name, const std::string& text) const {
    fs::create_directories((run_ / name).parent_path());
    write_file_atomically(run_ / name, text);
  }
  void put_evaluation(double before, double after) const {
    nlohmann::json artifact = {{"inputs", {{"rows: arc_easy", {{"path", (run_ / "rows.jsonl").string()}}}}}};
    artifact["results"]["models"] = {
        {{"label", "S' (distilled)"}, {"kl", 1.1}, {"tasks", {{"arc_easy", {{"acc,none", before}}}}}},
        {{"label", "S'' (distilled, 4 bits)"}, {"kl", 1.2}, {"tasks", {{"arc_easy", {{"acc,none", after}}}}}}};
    put("evaluate/artifact.json", artifact.dump());
  }
  // Problems among the checks, by the first words of each.
  std::vector<std::string> problems() const {
    std::vector<std::string> found;
    for (const auto& d : diagnose_run(run_)) {
      EXPECT_NE(d.finding, Finding::kNotKnown) << d.check << ": " << d.seen;
      if (d.finding == Finding::kProblem) {
        found.push_back(d.check);
        EXPECT_FALSE(d.advice.empty()) << d.check;
      }
    }
    return found;
  }
  void expect_only(const std::string& beginning) const {
    const auto found = problems();
    ASSERT_EQ(found.size(), 1u);
    EXPECT_TRUE(found[0].starts_with(beginning)) << found[0];
  }
  fs::path run_;
};

TEST_F(DiagnoseTest, AGoodRunHasNoProblem) { EXPECT_TRUE(problems().empty()); }

TEST_F(DiagnoseTest, EachSignIsSeenAlone) {
  put("search/artifact.json", R"({"results":{"best":{"train":{"alpha":0.6}}}})");
  expect_only("the teacher's distributions");
}
TEST_F(DiagnoseTest, DivergenceIsSeen) {
  put("train/artifact.json", R"({"results":{"held_out_before":{"kl":2.6},"held_out":{"kl":2.9}}})");
  expect_only("training ended below");
}
TEST_F(DiagnoseTest, AGuessIsSeen) {
  put("train/artifact.json", R"({"results":{"held_out_before":{"kl":12.6},"held_out":{"kl":11.9}}})");
  expect_only("the KL to the teacher");
}
TEST_F(DiagnoseTest, ARisingLossIsSeen) {
  put("train/train_log.jsonl",
      "{\"held_out\":{\"kl\":1.5}}\n{\"held_out\":{\"kl\":1.2}}\n{\"held_out\":{\"kl\":1.4}}\n");
  expect_only("the held-out loss");
}
TEST_F(DiagnoseTest, AnAdapterThatDoesNothingOrIsRoundedAwayIsSeen) {
  put("merge/artifact.json", R"({"results":{"proof":{"rms_adapter_effect":0.0,"rms_logit_difference":0.0}}})");
  expect_only("the adapter moves");
  put("merge/artifact.json", R"({"results":{"proof":{"rms_adapter_effect":1.0,"rms_logit_difference":0.5}}})");
  expect_only("the adapter moves");
}
TEST_F(DiagnoseTest, AnotherTemplateIsSeen) {
  put("teach/knowledge.json", R"({"vocabulary":49152,"chat_template":"SmolLM2"})");
  expect_only("teacher and student are asked");
}
TEST_F(DiagnoseTest, ALossInQuantizationIsSeen) {
  put_evaluation(0.55, 0.51);
  expect_only("quantization costs");
}
TEST_F(DiagnoseTest, AQuestionOfTheEvaluationAmongThePairsIsSeen) {
  put("synth/D_gen.jsonl",
      "{\"instruction\":\"a\"}\n{\"instruction\":\"which gas do plants take in, from the AIR?\"}\n");
  expect_only("no pair holds");
}

TEST_F(DiagnoseTest, AStoppedRunIsAnsweredAsFarAsItGot) {
  fs::remove_all(run_ / "merge");
  fs::remove_all(run_ / "evaluate");
  int unknown = 0;
  for (const auto& d : diagnose_run(run_)) unknown += d.finding == Finding::kNotKnown ? 1 : 0;
  EXPECT_EQ(unknown, 4);
  EXPECT_THROW(diagnose_run(run_ / "absent"), Error);
  put("search/artifact.json", "{");
  EXPECT_THROW(diagnose_run(run_), Error);
}

}  // namespace
}  // namespace potstill
