// synth: a teacher's question/answer pairs for a task, criticized, filtered and split.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "potstill/lm/language_model.h"
#include "potstill/stages/artifact.h"
#include "potstill/synth/contamination.h"
#include "potstill/synth/synth_config.h"
#include "potstill/synth/task_config.h"

namespace potstill {

struct SynthInputs {
  std::filesystem::path task;     // YAML file
  std::filesystem::path teacher;  // Hugging Face folder, GGUF, or an endpoint's address
  std::string dtype = "auto", device = "auto";
};

StageKey synth_key(const SynthInputs& inputs, const SynthConfig& config, uint64_t seed);

// Writes D_gen.jsonl (accepted pairs, "split" train or heldout), messages.jsonl (the same as conversations),
// rejected.jsonl (the others, with "reason" and "rule"), contaminated.jsonl (those of them that match a benchmark's
// row) and raw.jsonl (every answer and probability they rest on; critic.jsonl, those of another critic). The answers
// are kept in `journal` from their arrival on, and it outlives the artifact: a killed run, a changed threshold or a
// changed prompt asks only for what is missing.
void run_synth_stage(const SynthInputs& inputs, const SynthConfig& config, const std::filesystem::path& journal,
                     ArtifactWriter& out);

// Models that are open already; `identity` stands for the weights in the journal, `revision` in the pairs' lineage.
struct SynthModels {
  LanguageModel& teacher;
  std::string identity, revision = {};
  LanguageModel* critic = nullptr;  // null: the teacher
  std::string critic_identity = {}, critic_revision = {};
  const ContaminationIndex* benchmarks = nullptr;
};
void synthesize(const Task& task, const SynthConfig& config, const SynthModels& models,
                const std::filesystem::path& journal, ArtifactWriter& out);

// The journal of an artifact folder: "<folder>.raw.jsonl", beside it; a critic's own: "<folder>.critic.jsonl".
std::filesystem::path synth_journal(const std::filesystem::path& folder);

}  // namespace potstill
