// search: which training settings bring the student closest to its teacher, by trials that share one loaded student and
// the teacher's knowledge cache.
#pragma once

#include <cstdint>
#include <filesystem>

#include "potstill/distill/distill_config.h"
#include "potstill/quant/quant_config.h"
#include "potstill/search/search_config.h"
#include "potstill/stages/artifact.h"

namespace potstill {

struct SearchInputs {
  std::filesystem::path student;    // Hugging Face folder or GGUF
  std::filesystem::path knowledge;  // the teacher's knowledge cache of `pairs`, or the teacher itself
  std::filesystem::path pairs;      // D_gen.jsonl
  std::string dtype = "auto", device = "auto";
};

StageKey search_key(const SearchInputs& inputs, const SearchConfig& search, const DistillConfig& train,
                    const DistillDataConfig& data, const QuantizeConfig& quantize, uint64_t seed);

// Writes study.db (Optuna's), trials.jsonl (a line a trial), best.json and best.yaml (the [train] settings of the best
// one). Trials train with the seed that the train stage has, so training with the best settings gives the very student
// that the search saw; replicates of the best settings train with others. `quantize` is for the objective
// post-quant-kl. A killed search goes on inside the trial where it was.
// Throws Error(kNumeric) when every trial failed, Error(kInput) when no pair is held out.
void run_search_stage(const SearchInputs& inputs, const SearchConfig& search, const DistillConfig& train,
                      const DistillDataConfig& data, const QuantizeConfig& quantize, ArtifactWriter& out);

// Another worker, beside the one that runs the stage into `out`, on this machine or on one that shares its file system:
// does trials of the same study until none is left to begin, and writes nothing else. Returns how many it did. Throws
// Error(kInput) when no search with these settings and inputs is under way there.
int64_t join_search(const SearchInputs& inputs, const SearchConfig& search, const DistillConfig& train,
                    const DistillDataConfig& data, const QuantizeConfig& quantize, uint64_t seed,
                    const std::filesystem::path& out);

// `train` with the best settings of a finished search.
DistillConfig best_settings(const Artifact& search, const DistillConfig& train);

}  // namespace potstill
