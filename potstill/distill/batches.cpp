#include "potstill/distill/batches.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "potstill/base/rng.h"

namespace potstill {
namespace {

AnswerBatch pack_records(const DistillData& data, std::span<const int64_t> offsets, std::span<const int64_t> records,
                         at::Device device) {
  std::vector<std::vector<TokenId>> sequences;
  std::vector<int64_t> rows, labels, positions;
  int64_t row_begin = 0;
  for (const int64_t index : records) {
    const DistillRecord& record = data.records[static_cast<size_t>(index)];
    int64_t position = offsets[static_cast<size_t>(index)];
    for (const int64_t i : record.answer_positions()) {
      rows.push_back(row_begin + i);
      labels.push_back(record.tokens[static_cast<size_t>(i) + 1]);
      positions.push_back(position++);
    }
    row_begin += static_cast<int64_t>(record.tokens.size());
    sequences.push_back(record.tokens);
  }
  return {.packed = pack_sequences(sequences, device),
          .rows = at::tensor(rows, at::kLong).to(device),
          .labels = at::tensor(labels, at::kLong).to(device),
          .positions = at::tensor(positions, at::kLong)};
}

}  // namespace

std::vector<AnswerBatch> make_answer_batches(const DistillData& data, std::span<const int64_t> offsets,
                                             std::span<const int64_t> records, int64_t tokens_per_batch,
                                             at::Device device) {
  std::vector<AnswerBatch> batches;
  for (size_t first = 0; first < records.size();) {
    size_t last = first;
    int64_t num_tokens = 0;
    const auto length = [&](size_t i) {
      return static_cast<int64_t>(data.records[static_cast<size_t>(records[i])].tokens.size());
    };
    do {
      num_tokens += length(last++);
    } while (last < records.size() && num_tokens + length(last) <= tokens_per_batch);
    batches.push_back(pack_records(data, offsets, records.subspan(first, last - first), device));
    first = last;
  }
  return batches;
}

std::vector<std::vector<int64_t>> plan_steps(std::span<const int64_t> train, double epochs, int64_t batch_size,
                                             uint64_t seed) {
  const auto wanted = static_cast<size_t>(std::llround(std::ceil(epochs * static_cast<double>(train.size()) - 1e-9)));
  std::vector<int64_t> order;
  for (int64_t epoch = 0; order.size() < wanted; ++epoch) {
    std::vector<int64_t> shuffled(train.begin(), train.end());
    Rng rng(seed, fmt::format("distill/order/{}", epoch));
    rng.shuffle(shuffled);
    order.insert(order.end(), shuffled.begin(), shuffled.end());
  }
  order.resize(wanted);
  std::vector<std::vector<int64_t>> steps;
  for (size_t begin = 0; begin < order.size(); begin += static_cast<size_t>(batch_size)) {
    const size_t end = std::min(order.size(), begin + static_cast<size_t>(batch_size));
    steps.emplace_back(order.begin() + static_cast<std::ptrdiff_t>(begin),
                       order.begin() + static_cast<std::ptrdiff_t>(end));
  }
  return steps;
}

}  // namespace potstill
