// What a training step costs, counted beforehand: arithmetic and memory.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "potstill/distill/batches.h"
#include "potstill/distill/distill_config.h"
#include "potstill/distill/teacher_signal.h"
#include "potstill/nn/lora.h"
#include "potstill/nn/transformer.h"

namespace potstill {

// Multiplications and additions of the products with weights in a step: forward, back to the inputs, the factors, and
// both LM heads on the answer positions. Attention and what is not a product are left out.
double step_flops(const Transformer& student, const LoraAdapter& adapter, int64_t tokens, int64_t answer_tokens,
                  int64_t teacher_width, bool checkpoint_activations);

struct MemoryRow {
  std::string what;
  uint64_t bytes = 0;
};
uint64_t total_bytes(const std::vector<MemoryRow>& rows);

// What a run will keep resident, row by row. `resident`: this process before the first step, with the student and the
// teacher's head loaded. The largest packed batch decides the activations.
struct LargestBatch {
  int64_t tokens = 0, answer_tokens = 0;
};
std::vector<MemoryRow> training_memory(const Transformer& student, const LoraAdapter& adapter,
                                       const DistillConfig& config, uint64_t resident, LargestBatch largest,
                                       bool checkpoint_activations);

// Whether "auto" keeps layer inputs alone: where whole activations would take more than half of the memory that is
// free.
bool choose_checkpointing(const DistillConfig& config, const std::vector<MemoryRow>& whole, uint64_t resident,
                          uint64_t available);

}  // namespace potstill
