#include "potstill/nn/layer_stream.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "potstill/base/error.h"
#include "potstill/base/interrupt.h"

namespace potstill {
namespace {

int64_t num_positions(const CorpusState& corpus) {
  int64_t longest = 0;
  for (const PackedBatch& batch : corpus.batches) longest = std::max(longest, num_positions(batch));
  return longest;
}

void check_token_ids(const ModelPackage& model, std::span<const std::vector<int32_t>> corpus) {
  for (size_t i = 0; i < corpus.size(); ++i) {
    for (const int32_t id : corpus[i]) {
      if (id >= 0 && id < model.config.vocab_size) continue;
      throw Error(ErrorKind::kInput, model.path.string(),
                  fmt::format("sequence {} has token id {} but the vocabulary has {}", i, id, model.config.vocab_size));
    }
  }
}

}  // namespace

// Each distinct row of the table is read once.
at::Tensor embed_batch(const ModelPackage& model, const PackedBatch& batch, const LayerStreamOptions& options) {
  const int64_t num_tokens = batch.num_tokens(), hidden_size = model.config.hidden_size;
  at::Tensor embedded = at::empty({num_tokens, hidden_size}, at::kFloat);
  const auto token_ids = batch.token_ids.cpu();
  const int64_t* ids = token_ids.const_data_ptr<int64_t>();
  float* rows = embedded.mutable_data_ptr<float>();
  std::map<int64_t, int64_t> row_of;  // token id -> the first row that holds it
  for (int64_t t = 0; t < num_tokens; ++t) {
    const auto [known, is_new] = row_of.emplace(ids[t], t);
    float* row = rows + t * hidden_size;
    if (is_new) {
      model.weights->read_rows("model.embed_tokens.weight", ids[t], 1, {row, static_cast<size_t>(hidden_size)});
    } else {
      std::copy_n(rows + known->second * hidden_size, hidden_size, row);
    }
  }
  return embedded.to(options.device, options.dtype);
}

CorpusState embed_corpus(const ModelPackage& model, std::span<const std::vector<int32_t>> corpus,
                         const LayerStreamOptions& options) {
  check_token_ids(model, corpus);
  CorpusState state;
  for (size_t first = 0; first < corpus.size();) {
    size_t last = first;
    int64_t num_tokens = 0;
    do {
      num_tokens += static_cast<int64_t>(corpus[last++].size());
    } while (last < corpus.size() &&
             num_tokens + static_cast<int64_t>(corpus[last].size()) <= options.tokens_per_batch);
    state.batches.push_back(pack_sequences(corpus.subspan(first, last - first), options.device));
    state.hidden.push_back(embed_batch(model, state.batches.back(), options));
    auto& sequences = state.sequence_of.emplace_back();
    for (; first < last; ++first) sequences.push_back(static_cast<int64_t>(first));
  }
  return state;
}

CorpusState embed_batches(const ModelPackage& model, std::vector<PackedBatch> batches,
                          const LayerStreamOptions& options) {
  CorpusState state;
  int64_t next = 0;
  for (PackedBatch& batch : batches) {
    batch.token_ids = batch.token_ids.to(options.device);
    batch.positions = batch.positions.to(options.device);
    state.hidden.push_back(embed_batch(model, batch, options));
    auto& sequences = state.sequence_of.emplace_back();
    for (int64_t i = 0; i < batch.num_sequences(); ++i) sequences.push_back(next++);
    state.batches.push_back(std::move(batch));
  }
  return state;
}

void run_layers(const ModelPackage& model, CorpusState& corpus, const LayerStreamOptions& options, int64_t first,
                int64_t last, const LayerVisitor& visit) {
  const at::NoGradGuard no_grad;
  const RotaryTable rotary = make_rotary_table(model.config, num_positions(corpus), options.device);
  for (int64_t layer = first; layer < last; ++layer) {
    throw_if_interrupted();
    DecoderLayer weights = load_decoder_layer(model, layer, options.dtype, options.device);
    if (visit) {
      visit(layer, weights, corpus, rotary);
    } else {
      for (size_t b = 0; b < corpus.batches.size(); ++b) {
        corpus.hidden[b] = weights.forward(corpus.hidden[b], corpus.batches[b], rotary, model.config);
      }
    }
    model.weights->forget_pages();
    if (options.progress) options.progress(layer - first + 1, last - first);
  }
}

void finish_corpus(const ModelPackage& model, CorpusState& corpus, const LayerStreamOptions& options) {
  const at::NoGradGuard no_grad;
  const at::Tensor norm = load_weight(model.weights, "model.norm.weight", options.dtype, options.device);
  for (at::Tensor& hidden : corpus.hidden) hidden = rms_norm(hidden, norm, model.config.rms_norm_eps);
}

}  // namespace potstill
