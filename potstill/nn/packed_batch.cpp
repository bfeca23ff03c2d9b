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
  std::vector<int64_t> ends(static_cast<size_t>(batch.num_sequences()));  // a parent comes before its children
  for (size_t b = 0; b < ends.size(); ++b) {
    const int64_t parent = batch.parent.empty() ? -1 : batch.parent[b];
    ends[b] = batch.offsets[b + 1] - batch.offsets[b] + (parent < 0 ? 0 : ends[static_cast<size_t>(parent)]);
  }
  return ends.empty() ? 0 : *std::ranges::max_element(ends);
}

}  // namespace potstill
