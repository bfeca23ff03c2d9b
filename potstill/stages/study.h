// study: an experiment with arms and seeds. Every arm is the recipe with something changed; every arm and seed goes
// through the pipeline's own stages, and what two of them have in common is made once.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "potstill/eval/seeded_scores.h"

namespace potstill {

struct StudyOptions {
  std::string kind;  // one of study_kinds()
  std::filesystem::path recipe;
  std::vector<std::string> overrides;  // --set of the recipe, for every arm
  std::filesystem::path folder;        // of the recipe's studies; empty: studies/<recipe's name>
  int64_t seeds = 5;
  std::vector<std::string> arms;  // only these of the kind's arms; empty: all
  std::filesystem::path text;     // of the kind calibration: the text that is not the task's
  std::string command;            // as it was typed
};

std::vector<std::string> study_kinds();

// A model that an arm makes, under every seed.
struct StudyModel {
  std::string label;                                   // "S'", "S''", "S1 + GPTQ"
  SeededScores correct;                                // acc of every row
  std::map<std::string, std::vector<double>> numbers;  // "kl", "pairs_perplexity", …: one value a seed
};

// The log of one training run: step, loss and its terms, rate, … by name, one value a step.
struct StudyTraining {
  int64_t seed = 0;
  std::map<std::string, std::vector<double>> log;
};

struct StudyArm {
  std::string name, what;                    // "muon", what it changes
  std::vector<std::string> overrides;        // of the recipe
  bool searches = true;                      // whether a recipe's [search] holds
  int64_t sequences = 0;                     // of calibration, and what they are drawn from; 0 and empty: the recipe's
  std::string teacher = {};                  // made of the recipe's (other_teacher.h); empty: the recipe's
  std::vector<StudyModel> models = {};       // filled by the run, and so is
  std::vector<StudyTraining> training = {};  // a run a seed; none where an arm before trained the same student
};

// A question that the study answers: an estimate with its interval, and what it means in words.
struct StudyFinding {
  std::string question;
  double estimate = 0, low = 0, high = 0;  // NaN where there is none
  std::string unit;                        // "points", "ratio", "nats"
  std::string answer;
};

struct StudyResult {
  std::string kind, name;
  std::filesystem::path folder;  // <the recipe's studies>/<kind>
  int64_t seeds = 0;
  std::vector<StudyArm> arms;
  std::vector<StudyFinding> findings;  // the first is the verdict
};

// Runs what is not done yet. Throws what the stages throw; killed anywhere, the same call goes on. Writes study.json
// and study.html into <folder>/<kind>; artifacts lie in <folder>/store, where the recipe's other studies find them.
StudyResult run_study(const StudyOptions& options);

nlohmann::ordered_json study_to_json(const StudyResult& result);
// The one table, and the findings below it.
std::string study_table(const StudyResult& result);

}  // namespace potstill
