#include "potstill/nn/perplexity.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "potstill/base/error.h"
#include "potstill/nn/layer_stream.h"
#include "potstill/nn/token_log_probs.h"

namespace potstill {
namespace {

std::vector<std::vector<int32_t>> cut_windows(std::span<const int32_t> tokens, const PerplexityOptions& options) {
  const auto context = static_cast<size_t>(options.context);
  std::vector<std::vector<int32_t>> windows;
  for (size_t begin = 0; begin < tokens.size(); begin += context) {
    const auto window = tokens.subspan(begin, std::min(context, tokens.size() - begin));
    if (static_cast<int64_t>(window.size()) > options.score_from) windows.emplace_back(window.begin(), window.end());
  }
  return windows;
}

// Rows of a batch that predict a token of their own sequence from `score_from` on, and what they predict.
struct Predictions {
  at::Tensor rows, targets;
};
Predictions predictions_of(const PackedBatch& batch, int64_t score_from) {
  std::vector<int64_t> rows;
  for (int64_t b = 0; b < batch.num_sequences(); ++b) {
    for (int64_t row = batch.offsets[b] + score_from - 1; row + 1 < batch.offsets[b + 1]; ++row) rows.push_back(row);
  }
  const auto index = at::tensor(rows, at::kLong).to(batch.token_ids.device());
  return {index, batch.token_ids.index_select(0, index + 1)};
}

std::vector<std::vector<int32_t>> windows_of(std::span<const int32_t> tokens, const ModelConfig& config,
                                             const PerplexityOptions& options, const std::string& where) {
  if (options.context < 2 || options.context > config.max_position_embeddings) {
    throw Error(ErrorKind::kUsage, where,
                fmt::format("a context of {} tokens asked but it must be in [2, {}]", options.context,
                            config.max_position_embeddings));
  }
  if (options.score_from < 1 || options.score_from >= options.context) {
    throw Error(ErrorKind::kUsage, where,
                fmt::format("scoring from token {} of a window asked but it must be in [1, {}]", options.score_from,
                            options.context - 1));
  }
  if (options.limit_tokens > 0)
    tokens = tokens.first(std::min(tokens.size(), static_cast<size_t>(options.limit_tokens)));
  auto windows = cut_windows(tokens, options);
  if (windows.empty()) {
    throw Error(ErrorKind::kInput, where, fmt::format("a text of {} tokens has nothing to score", tokens.size()),
                fmt::format("give a text of more than {} tokens", options.score_from));
  }
  return windows;
}

// Sums over batches of final hidden states.
struct Likelihood {
  double nll = 0;
  int64_t tokens = 0;

  void add(const at::Tensor& hidden, const PackedBatch& batch, const at::Tensor& lm_head, int64_t score_from) {
    const Predictions predictions = predictions_of(batch, score_from);
    const auto scored = token_log_probs(hidden.index_select(0, predictions.rows), predictions.targets, lm_head);
    nll -= scored.log_prob.sum().item<double>();
    tokens += scored.log_prob.size(0);
  }
  PerplexityResult result(const std::string& where) const {
    if (!std::isfinite(nll)) {
      throw Error(ErrorKind::kNumeric, where, fmt::format("the log-likelihood of the text is {}", -nll),
                  "the weights hold NaN or infinity, or overflow in this dtype; try --dtype fp32");
    }
    const double mean = nll / static_cast<double>(tokens);
    return {.perplexity = std::exp(mean), .mean_nll = mean, .scored_tokens = tokens};
  }
};

}  // namespace

PerplexityResult measure_perplexity(const ModelPackage& model, std::span<const int32_t> tokens,
                                    const PerplexityOptions& options) {
  const at::NoGradGuard no_grad;
  const auto windows = windows_of(tokens, model.config, options, model.path.string());
  LayerStreamOptions stream;
  stream.device = compute_device(options.device);
  stream.dtype = compute_dtype(options.dtype, stream.device);
  stream.progress = options.progress;
  CorpusState corpus = embed_corpus(model, windows, stream);
  run_layers(model, corpus, stream, 0, model.config.num_hidden_layers);
  finish_corpus(model, corpus, stream);
  const at::Tensor lm_head = load_lm_head(model, stream.dtype, stream.device);
  Likelihood sums;
  for (size_t b = 0; b < corpus.batches.size(); ++b) {
    sums.add(corpus.hidden[b], corpus.batches[b], lm_head, options.score_from);
  }
  return sums.result(model.path.string());
}

PerplexityResult measure_perplexity(const Transformer& model, std::span<const int32_t> tokens,
                                    const PerplexityOptions& options, const std::string& where) {
  const at::NoGradGuard no_grad;
  const auto windows = windows_of(tokens, model.config, options, where);
  const auto per_batch =
      static_cast<size_t>(std::max<int64_t>(1, LayerStreamOptions{}.tokens_per_batch / options.context));
  Likelihood sums;
  for (size_t first = 0; first < windows.size(); first += per_batch) {
    const auto some = std::span(windows).subspan(first, std::min(per_batch, windows.size() - first));
    const PackedBatch batch = pack_sequences(some, model.device());
    sums.add(model.hidden_states(batch), batch, model.lm_head, options.score_from);
  }
  return sums.result(where);
}

PerplexityResult measure_perplexity(const ModelPackage& model, std::string_view text,
                                    const PerplexityOptions& options) {
  return measure_perplexity(model, model.tokenizer->encode(text), options);
}

}  // namespace potstill
