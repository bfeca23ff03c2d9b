#include "potstill/distill/batches.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "potstill/base/rng.h"

namespace potstill {
namespace {

const std::vector<TokenId>& tokens_of(const DistillData& data, int64_t record) {
  return data.records[static_cast<size_t>(record)].tokens;
}

// How many tokens the records begin with in common, none of which predicts an answer's token.
int64_t shared_beginning(const DistillData& data, std::span<const int64_t> records, at::Device device) {
  if (records.size() < 2 || !device.is_cpu()) return 0;  // gradients through a parent are the CPU's
  const auto& first = tokens_of(data, records.front());
  auto shared = std::ssize(first);
  for (const int64_t record : records) {
    const auto& tokens = tokens_of(data, record);
    const auto answers = data.records[static_cast<size_t>(record)].answer_positions();
    shared = std::min({shared, std::ssize(tokens), answers.empty() ? std::ssize(tokens) : answers.front()});
    shared = std::mismatch(first.begin(), first.begin() + shared, tokens.begin()).first - first.begin();
  }
  return shared;
}

BatchSize size_of(const DistillData& data, std::span<const int64_t> records, at::Device device) {
  BatchSize size;
  for (const int64_t record : records) {
    size.tokens += std::ssize(tokens_of(data, record));
    size.answer_tokens += std::ssize(data.records[static_cast<size_t>(record)].answer_positions());
  }
  const auto others = std::max<int64_t>(0, std::ssize(records) - 1);
  size.rows = size.tokens - others * shared_beginning(data, records, device);
  return size;
}

AnswerBatch pack_records(const DistillData& data, std::span<const int64_t> offsets, std::span<const int64_t> records,
                         at::Device device) {
  const int64_t shared = shared_beginning(data, records, device);
  std::vector<std::vector<TokenId>> sequences;
  if (shared > 0) {
    const auto& first = tokens_of(data, records.front());
    sequences.emplace_back(first.begin(), first.begin() + shared);
  }
  std::vector<int64_t> rows, labels, positions;
  int64_t row_begin = shared;
  for (const int64_t index : records) {
    const DistillRecord& record = data.records[static_cast<size_t>(index)];
    int64_t position = offsets[static_cast<size_t>(index)];
    for (const int64_t i : record.answer_positions()) {
      rows.push_back(row_begin + i - shared);
      labels.push_back(record.tokens[static_cast<size_t>(i) + 1]);
      positions.push_back(position++);
    }
    sequences.emplace_back(record.tokens.begin() + shared, record.tokens.end());
    row_begin += std::ssize(sequences.back());
  }
  AnswerBatch batch{.packed = pack_sequences(sequences, device),
                    .size = size_of(data, records, device),
                    .rows = at::tensor(rows, at::kLong).to(device),
                    .labels = at::tensor(labels, at::kLong).to(device),
                    .positions = at::tensor(positions, at::kLong)};
  if (shared > 0) {
    batch.packed.parent.assign(sequences.size(), 0);
    batch.packed.parent.front() = -1;
    batch.packed.positions.slice(0, shared).add_(shared);
  }
  return batch;
}

std::vector<std::span<const int64_t>> cut(const DistillData& data, std::span<const int64_t> records,
                                          int64_t tokens_per_batch) {
  std::vector<std::span<const int64_t>> parts;
  for (size_t first = 0; first < records.size();) {
    size_t last = first;
    int64_t num_tokens = 0;
    do {
      num_tokens += std::ssize(tokens_of(data, records[last++]));
    } while (last < records.size() && num_tokens + std::ssize(tokens_of(data, records[last])) <= tokens_per_batch);
    parts.push_back(records.subspan(first, last - first));
    first = last;
  }
  return parts;
}

}  // namespace

std::vector<AnswerBatch> make_answer_batches(const DistillData& data, std::span<const int64_t> offsets,
                                             std::span<const int64_t> records, int64_t tokens_per_batch,
                                             at::Device device) {
  std::vector<AnswerBatch> batches;
  for (const auto part : cut(data, records, tokens_per_batch)) {
    batches.push_back(pack_records(data, offsets, part, device));
  }
  return batches;
}

std::vector<BatchSize> answer_batch_sizes(const DistillData& data, std::span<const int64_t> records,
                                          int64_t tokens_per_batch, at::Device device) {
  std::vector<BatchSize> sizes;
  for (const auto part : cut(data, records, tokens_per_batch)) sizes.push_back(size_of(data, part, device));
  return sizes;
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
