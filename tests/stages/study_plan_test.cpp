#include "potstill/stages/study_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "potstill/base/error.h"
#include "potstill/base/rng.h"

namespace potstill {
namespace {

constexpr size_t kSeeds = 5, kRows = 400;

// Rows right with the probability given; `lost` of the first model's right rows are wrong in the second.
std::pair<SeededScores, SeededScores> before_and_after(double accuracy, double lost, const std::string& name) {
  Rng rows(1, "study_plan_test/rows"), rng(1, "study_plan_test/" + name);
  std::vector<double> difficulty(kRows);
  for (auto& d : difficulty) d = rows.uniform();
  SeededScores before, after;
  for (size_t s = 0; s < kSeeds; ++s) {
    auto &a = before["arc_easy"].emplace_back(), &b = after["arc_easy"].emplace_back();
    for (const double d : difficulty) {
      a.push_back(d < accuracy ? 1.0 : 0.0);
      b.push_back(a.back() == 1.0 && rng.uniform() < lost ? 0.0 : a.back());
    }
  }
  return {before, after};
}

StudyArm arm(const std::string& name, double accuracy, double lost) {
  const auto [before, after] = before_and_after(accuracy, lost, name);
  StudyArm result{.name = name, .what = {}, .overrides = {}};
  result.models = {{.label = "S'", .correct = before, .numbers = {}},
                   {.label = "S''", .correct = after, .numbers = {}}};
  return result;
}

TEST(StudyFindings, TheOptimizersLossesAreComparedFirst) {
  const auto findings = study_findings("optimizer", {arm("adamw", 0.6, 0.10), arm("muon", 0.6, 0.02)});
  ASSERT_GE(findings.size(), 4u);
  EXPECT_EQ(findings[0].question, "loss of adamw minus loss of muon");
  EXPECT_NEAR(findings[0].estimate, 4.8, 1.5);
  EXPECT_GT(findings[0].low, 0);
  EXPECT_NE(findings[0].answer.find("adamw loses more"), std::string::npos) << findings[0].answer;
  EXPECT_EQ(findings[1].unit, "ratio");
  EXPECT_GT(findings[1].low, 1.0);
  EXPECT_LT(findings[1].low, findings[1].estimate);
}

TEST(StudyFindings, NoDifferenceIsSaidWhereThereIsNone) {
  const auto findings = study_findings("optimizer", {arm("adamw", 0.6, 0.0), arm("muon", 0.6, 0.0)});
  EXPECT_EQ(findings[0].answer, "no difference shown at 5 seeds, 400 rows");
  EXPECT_TRUE(std::isnan(findings[1].low));  // nothing was lost: no ratio
  EXPECT_NE(findings[1].answer.find("too near 0"), std::string::npos) << findings[1].answer;
}

TEST(StudyFindings, WhatQuantizationAddsToTheKlIsComparedByTheSeed) {
  StudyArm adamw = arm("adamw", 0.6, 0.0), muon = arm("muon", 0.6, 0.0);
  adamw.models[0].numbers["kl"] = {1.00, 1.10, 0.90, 1.05, 0.95};
  adamw.models[1].numbers["kl"] = {1.10, 1.21, 0.99, 1.16, 1.04};
  muon.models[0].numbers["kl"] = {1.50, 1.30, 1.40, 1.45, 1.35};
  muon.models[1].numbers["kl"] = {1.52, 1.32, 1.43, 1.47, 1.36};
  const auto findings = study_findings("optimizer", {adamw, muon});
  const auto found = std::ranges::find(findings, "KL added by quantization: adamw minus muon", &StudyFinding::question);
  ASSERT_NE(found, findings.end());
  EXPECT_NEAR(found->estimate, 0.08, 1e-9);  // 0.10 by 0.02, though muon's own KL scatters by 0.1
  EXPECT_NEAR(found->low, 0.08 - 2.776445 * std::sqrt(0.00015 / 5), 1e-6);
  EXPECT_EQ(found->answer, "adamw loses more by 0.080 nats at 5 seeds");
}

TEST(StudyFindings, AblationSetsTheFrameworkAgainstGptqAlone) {
  StudyArm recipe{.name = "recipe", .what = {}, .overrides = {}};
  for (const auto& [label, accuracy] :
       {std::pair{"S1", 0.40}, {"S1 + RTN", 0.30}, {"S1 + GPTQ", 0.38}, {"S'", 0.6}, {"S''", 0.59}}) {
    recipe.models.push_back({.label = label, .correct = before_and_after(accuracy, 0.0, label).first, .numbers = {}});
  }
  const auto findings = study_findings("ablation", {recipe});
  ASSERT_EQ(findings.size(), 5u);
  EXPECT_NEAR(findings[0].estimate, 21, 3);
  EXPECT_NE(findings[0].answer.find("better than GPTQ alone"), std::string::npos) << findings[0].answer;
}

StudyArm taught(const std::string& name, std::vector<double> kl) {
  StudyArm result{.name = name, .what = {}, .overrides = {}};
  const SeededScores scores = before_and_after(0.5, 0.0, name).first;
  result.models = {{.label = "S1", .correct = scores, .numbers = {{"kl", {2.5, 2.5, 2.5, 2.5, 2.5}}}},
                   {.label = "S'", .correct = scores, .numbers = {{"kl", std::move(kl)}}}};
  return result;
}

TEST(StudyFindings, MisalignedIdsAreSetBesideAlignedOnesFirst) {
  const auto findings = study_findings(
      "tokenizer", {taught("aligned", {1.0, 1.1, 0.9, 1.0, 1.0}), taught("other ids, ULD", {1.0, 1.0, 1.1, 0.9, 1.0}),
                    taught("misaligned", {9.0, 9.2, 8.8, 9.1, 8.9})});
  EXPECT_EQ(findings[0].question, "KL of S' of misaligned minus that of aligned");
  EXPECT_EQ(findings[0].unit, "nats");
  EXPECT_NEAR(findings[0].estimate, 8.0, 1e-9);
  EXPECT_NEAR(findings[0].low, 8.0 - 2.776445 * std::sqrt(0.01 / 5), 1e-5);  // Student's t, 4 degrees of freedom
  EXPECT_EQ(findings[0].answer, "farther from the teacher by 8.000 nats at 5 seeds");
  EXPECT_EQ(findings[1].question, "KL of S' of other ids, ULD minus that of aligned");
  EXPECT_EQ(findings[1].answer, "no difference shown at 5 seeds");
  const auto training =
      std::ranges::find(findings, "KL of S' after training minus before, aligned", &StudyFinding::question);
  ASSERT_NE(training, findings.end());
  EXPECT_EQ(training->answer, "nearer to the teacher by 1.500 nats at 5 seeds");
}

TEST(StudyPlan, OtherTeachersAreMadeOfWeightsOnTheDisk) {
  Recipe recipe;
  recipe.evaluate.tasks = {"arc_easy"};
  recipe.top.teacher = "teacher";
  StudyOptions options;
  options.kind = "tokenizer";
  const StudyPlan plan = plan_study(options, recipe);
  EXPECT_EQ(plan.until, "merge");
  std::vector<std::string> teachers;
  for (const auto& each : plan.arms) teachers.push_back(each.teacher);
  EXPECT_EQ(teachers, (std::vector<std::string>{"", "", "other-ids", "fewer-merges", "misaligned"}));
  recipe.top.teacher = "https://host/v1";
  EXPECT_THROW(plan_study(options, recipe), Error);
}

TEST(StudyPlan, ASwitchHasBothOrdersAndEachAlone) {
  Recipe recipe;
  recipe.evaluate.tasks = {"arc_easy"};
  StudyOptions options;
  options.kind = "switch";
  const StudyPlan plan = plan_study(options, recipe);
  std::vector<std::string> names;
  for (const auto& each : plan.arms) {
    names.push_back(each.name);
    EXPECT_FALSE(each.searches);  // one rate cannot be two optimizers'
  }
  EXPECT_EQ(names, (std::vector<std::string>{"adamw", "muon", "adamw:0.5,muon:0.5", "muon:0.5,adamw:0.5"}));
  options.arms = {"muon"};
  EXPECT_EQ(plan_study(options, recipe).arms.size(), 1u);
  options.arms = {"sgd"};
  EXPECT_THROW(plan_study(options, recipe), Error);
  options.arms = {};
  recipe.evaluate.tasks = {};
  EXPECT_THROW(plan_study(options, recipe), Error);  // nothing to compare on
  options.kind = "calibration";
  recipe.evaluate.tasks = {"arc_easy"};
  EXPECT_THROW(plan_study(options, recipe), Error);  // no text that is not the task's
}

}  // namespace
}  // namespace potstill
