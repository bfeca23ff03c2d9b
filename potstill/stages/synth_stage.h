// synth: a teacher's question/answer pairs for a task, criticized, filtered and split.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "potstill/lm/language_model.h"
#include "potstill/stages/artifact.h"
#include "potstill/synth/synth_config.h"
#include "potstill/synth/task_config.h"

namespace potstill {

struct SynthInputs {
  std::filesystem::path task;     // YAML file
  std::filesystem::path teacher;  // Hugging Face folder, GGUF, or an endpoint's address
  std::string dtype = "auto", device = "auto";
};

StageKey synth_key(const SynthInputs& inputs, const SynthConfig& config, uint64_t seed);

// Writes D_gen.jsonl (accepted pairs, "split" train or heldout), rejected.jsonl (the others, with "reason") and
// raw.jsonl (every answer and probability they rest on). The answers are kept in `journal` from their arrival on, and
// it outlives the artifact: a killed run, a changed threshold or a changed prompt asks only for what is missing.
void run_synth_stage(const SynthInputs& inputs, const SynthConfig& config, const std::filesystem::path& journal,
                     ArtifactWriter& out);

// The same with a model that is open already; `identity` stands for its weights in the journal.
void synthesize(const Task& task, const SynthConfig& config, LanguageModel& teacher, const std::string& identity,
                const std::filesystem::path& journal, ArtifactWriter& out);

// The journal of an artifact folder: "<folder>.raw.jsonl", beside it.
std::filesystem::path synth_journal(const std::filesystem::path& folder);

}  // namespace potstill
