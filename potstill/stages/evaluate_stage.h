// evaluate: models side by side: closeness to the teacher on held-out pairs, perplexity, benchmarks, size, latency.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "potstill/distill/distill_config.h"
#include "potstill/eval/eval_config.h"
#include "potstill/stages/artifact.h"
#include "potstill/stages/evaluated_model.h"

namespace potstill {

struct EvaluateInputs {
  std::vector<EvaluatedModel> models;
  std::filesystem::path knowledge;  // the teacher's knowledge cache; empty: no comparison with the teacher
  std::filesystem::path pairs;      // that it was made of
  std::string dtype = "auto", device = "auto";
};

StageKey evaluate_key(const EvaluateInputs& inputs, const EvalConfig& config, const DistillDataConfig& data,
                      uint64_t seed);

// Writes evaluation.json: {"models": [{label, path, size_bytes, kl, top1_agreement, pairs_perplexity, text_perplexity,
// ms_per_token, tasks: {arc_easy: {"acc,none": …}}}]}. Finished models and scored rows are kept under work/.
void run_evaluate_stage(const EvaluateInputs& inputs, const EvalConfig& config, const DistillDataConfig& data,
                        ArtifactWriter& out);

// The same without an artifact. One object a model; what is not asked for is left out. `work` (may be empty) keeps what
// is done, for a next call with the same inputs and settings. `samples` (may be empty): a folder for
// samples_<task>_<suffix>_<label>.jsonl, the label where there are several models.
nlohmann::ordered_json evaluate_models(const EvaluateInputs& inputs, const EvalConfig& config,
                                       const DistillDataConfig& data, uint64_t seed, const std::filesystem::path& work,
                                       const std::filesystem::path& samples = {},
                                       const std::string& samples_suffix = {});

// The models' numbers as a table for the terminal.
std::string evaluation_table(const nlohmann::ordered_json& models);

}  // namespace potstill
