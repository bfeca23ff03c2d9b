// train: a LoRA student on the teacher's knowledge.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "potstill/distill/distill_config.h"
#include "potstill/stages/artifact.h"

namespace potstill {

class RankGroup;

struct TrainInputs {
  std::filesystem::path student;  // Hugging Face folder or GGUF
  std::filesystem::path teacher;  // knowledge cache; or a model, whose knowledge is then cached first
  std::filesystem::path data;     // pairs, JSONL
  std::string dtype = "auto", device = "auto";
  // Of the choice of held-out pairs, where it is not the stage's seed: replicates train on the same pairs.
  std::optional<uint64_t> data_seed = {};
};

StageKey train_key(const TrainInputs& inputs, const DistillConfig& config, const DistillDataConfig& data,
                   uint64_t seed);

// A rank other than the first of several that train together (RANK, WORLD_SIZE …): the same training, whose results the
// first rank writes. Its scratch files go to a folder of its own, which is gone at the end.
void join_train_stage(const TrainInputs& inputs, const DistillConfig& config, const DistillDataConfig& data,
                      uint64_t seed, RankGroup& group);

// Writes a PEFT adapter (adapter_config.json, adapter_model.safetensors) and train_log.jsonl, a line a step.
// Checkpoints under work/ let a killed or interrupted run go on to the same bytes.
void run_train_stage(const TrainInputs& inputs, const DistillConfig& config, const DistillDataConfig& data,
                     ArtifactWriter& out, RankGroup* group = nullptr);

}  // namespace potstill
