// PackedBatch: sequences laid end to end, without padding. Linear layers see [ΣT, D]; attention stays inside a
// sequence.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <span>
#include <vector>

namespace potstill {

struct PackedBatch {
  at::Tensor token_ids;          // [ΣT] int64
  at::Tensor positions;          // [ΣT] int64, from 0 in each sequence
  std::vector<int64_t> offsets;  // [B + 1]; sequence b is rows offsets[b] .. offsets[b + 1]
  // Empty, or [B]: the earlier sequence that this one continues and sees as a whole, -1 = none. So the answers to one
  // question share its rows, and training pairs their template's. Gradients flow on the CPU (fp32, bf16).
  std::vector<int64_t> parent;

  int64_t num_sequences() const { return static_cast<int64_t>(offsets.size()) - 1; }
  int64_t num_tokens() const { return offsets.back(); }
};

PackedBatch pack_sequences(std::span<const std::vector<int32_t>> sequences, at::Device device = at::kCPU);
// Positions that a batch takes: its longest sequence, a parent's rows counted in.
int64_t num_positions(const PackedBatch& batch);

}  // namespace potstill
