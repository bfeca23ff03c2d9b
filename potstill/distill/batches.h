// Records as packed batches with their answer positions.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <span>
#include <vector>

#include "potstill/distill/records.h"
#include "potstill/nn/packed_batch.h"

namespace potstill {

struct AnswerBatch {
  PackedBatch packed;
  at::Tensor rows;       // [N] int64 on the batch's device: rows of the packed batch that predict an answer's token
  at::Tensor labels;     // [N] int64, same device: the tokens that they predict
  at::Tensor positions;  // [N] int64 on the CPU: the same positions in TeacherSignal's numbering
};

// Packs records (indices into data.records), in their order, into batches of at most about tokens_per_batch tokens; a
// record longer than that is a batch of its own. offsets: answer_position_offsets(data).
std::vector<AnswerBatch> make_answer_batches(const DistillData& data, std::span<const int64_t> offsets,
                                             std::span<const int64_t> records, int64_t tokens_per_batch,
                                             at::Device device);

// The pairs of each optimizer step: the training pairs shuffled anew for every epoch, cut into steps of batch_size; the
// last step may be short.
std::vector<std::vector<int64_t>> plan_steps(std::span<const int64_t> train, double epochs, int64_t batch_size,
                                             uint64_t seed);

}  // namespace potstill
