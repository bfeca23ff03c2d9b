// The pipeline: the order of the stages, what each reads, and nothing else.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "potstill/recipe/recipe.h"
#include "potstill/stages/artifact.h"

namespace potstill {

struct PipelineOptions {
  std::filesystem::path run_dir;  // empty: runs/<name>
  std::string from, until;        // names of stages; empty: the whole pipeline
  std::string command;            // as it was typed, for the report
  // A folder that several runs share: a stage's artifact lies there under the hash of its settings and inputs, so that
  // what two runs have in common is made once. Empty: in the run's own folder.
  std::filesystem::path store = {};
  // Trains and quantizes under another seed, derived from the recipe's; the student, the pairs, the teacher's knowledge
  // and the search stay. 0 = the recipe's own.
  int64_t replicate = 0;
  bool preflight = true;
};

// Stages in order; those that a recipe leaves out (prune, synth, search) are not run.
std::vector<std::string_view> pipeline_stages();

struct PipelineResult {
  std::filesystem::path run_dir;
  std::filesystem::path gguf, report;                   // empty when `until` stopped before
  nlohmann::ordered_json evaluation;                    // {} likewise
  std::map<std::string, std::filesystem::path> stages;  // the folder of each stage that this run has
};

// Checks the whole plan (preflight.h), then runs each stage that is not already done with these settings and inputs.
// `from` makes that stage and every later one again; the earlier ones must be there. Killed anywhere, the same call
// goes on and ends with the same bytes.
PipelineResult run_pipeline(const Recipe& recipe, const PipelineOptions& options);

}  // namespace potstill
