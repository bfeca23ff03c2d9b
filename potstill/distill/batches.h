// Records as packed batches with their answer positions.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <span>
#include <vector>

#include "potstill/distill/records.h"
#include "potstill/nn/packed_batch.h"

namespace potstill {

// tokens: of the pairs; rows: of the packed batch, in which a beginning that all its pairs share lies once.
struct BatchSize {
  int64_t tokens = 0, rows = 0, answer_tokens = 0;
};

struct AnswerBatch {
  PackedBatch packed;
  BatchSize size;
  at::Tensor rows;       // [N] int64 on the batch's device: rows of the packed batch that predict an answer's token
  at::Tensor labels;     // [N] int64, same device: the tokens that they predict
  at::Tensor positions;  // [N] int64 on the CPU: the same positions in TeacherSignal's numbering
};

// Packs records (indices into data.records), in their order, into batches of at most about tokens_per_batch tokens; a
// record longer than that is a batch of its own. What all records of a batch begin with (their template's words) is
// packed once, as the parent of the rest: hidden states and gradients are the same, and on the CPU that is how it is
// done. offsets: answer_position_offsets(data).
std::vector<AnswerBatch> make_answer_batches(const DistillData& data, std::span<const int64_t> offsets,
                                             std::span<const int64_t> records, int64_t tokens_per_batch,
                                             at::Device device);

// The sizes of make_answer_batches' batches.
std::vector<BatchSize> answer_batch_sizes(const DistillData& data, std::span<const int64_t> records,
                                          int64_t tokens_per_batch, at::Device device);

// The pairs of each optimizer step: the training pairs shuffled anew for every epoch, cut into steps of batch_size; the
// last step may be short.
std::vector<std::vector<int64_t>> plan_steps(std::span<const int64_t> train, double epochs, int64_t batch_size,
                                             uint64_t seed);

}  // namespace potstill
