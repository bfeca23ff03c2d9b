#include "potstill/nn/packed_batch.h"

#include <algorithm>

namespace potstill {

PackedBatch pack_sequences(std::span<const std::vector<int32_t>> sequences, at::Device device) {
  PackedBatch batch;
  batch.offsets.push_back(0);
  for (const auto& sequence : sequences) {
    batch.offsets.push_back(batch.offsets.back() + static_cast<int64_t>(sequence.size()));
  }
  batch.token_ids = at::empty({batch.num_tokens()}, at::kLong);
  batch.positions = at::empty({batch.num_tokens()}, at::kLong);
  int64_t* token_id = batch.token_ids.mutable_data_ptr<int64_t>();
  int64_t* position = batch.positions.mutable_data_ptr<int64_t>();
  for (const auto& sequence : sequences) {
    for (size_t t = 0; t < sequence.size(); ++t) {
      *token_id++ = sequence[t];
      *position++ = static_cast<int64_t>(t);
    }
  }
  batch.token_ids = batch.token_ids.to(device);
  batch.positions = batch.positions.to(device);
  return batch;
}

int64_t num_positions(const PackedBatch& batch) {
  const auto length = [&](int64_t b) { return batch.offsets[b + 1] - batch.offsets[b]; };
  int64_t longest = 0;
  for (int64_t b = 0; b < batch.num_sequences(); ++b) {
    const int64_t parent = batch.parent.empty() ? -1 : batch.parent[b];
    longest = std::max(longest, length(b) + (parent < 0 ? 0 : length(parent)));
  }
  return longest;
}

}  // namespace potstill
