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

}  // namespace

PerplexityResult measure_perplexity(const ModelPackage& model, std::span<const int32_t> tokens,
                                    const PerplexityOptions& options) {
  const at::NoGradGuard no_grad;
  const std::string where = model.path.string();
  if (options.context < 2 || options.context > model.config.max_position_embeddings) {
    throw Error(ErrorKind::kUsage, where,
                fmt::format("a context of {} tokens asked but it must be in [2, {}]", options.context,
                            model.config.max_position_embeddings));
  }
  if (options.score_from < 1 || options.score_from >= options.context) {
    throw Error(ErrorKind::kUsage, where,
                fmt::format("scoring from token {} of a window asked but it must be in [1, {}]", options.score_from,
                            options.context - 1));
  }
  if (options.limit_tokens > 0)
    tokens = tokens.first(std::min(tokens.size(), static_cast<size_t>(options.limit_tokens)));
  const auto windows = cut_windows(tokens, options);
  if (windows.empty()) {
    throw Error(ErrorKind::kInput, where, fmt::format("a text of {} tokens has nothing to score", tokens.size()),
                fmt::format("give a text of more than {} tokens", options.score_from));
  }

  LayerStreamOptions stream;
  stream.device = compute_device(options.device);
  stream.dtype = compute_dtype(options.dtype, stream.device);
  stream.progress = options.progress;
  CorpusState corpus = embed_corpus(model, windows, stream);
  run_layers(model, corpus, stream, 0, model.config.num_hidden_layers);
  finish_corpus(model, corpus, stream);

  const at::Tensor lm_head = load_lm_head(model, stream.dtype, stream.device);
  PerplexityResult result;
  double nll = 0;
  for (size_t b = 0; b < corpus.batches.size(); ++b) {
    const Predictions predictions = predictions_of(corpus.batches[b], options.score_from);
    const auto scored =
        token_log_probs(corpus.hidden[b].index_select(0, predictions.rows), predictions.targets, lm_head);
    nll -= scored.log_prob.sum().item<double>();
    result.scored_tokens += scored.log_prob.size(0);
  }
  if (!std::isfinite(nll)) {
    throw Error(ErrorKind::kNumeric, where, fmt::format("the log-likelihood of the text is {}", -nll),
                "the weights hold NaN or infinity, or overflow in this dtype; try --dtype fp32");
  }
  result.mean_nll = nll / static_cast<double>(result.scored_tokens);
  result.perplexity = std::exp(result.mean_nll);
  return result;
}

PerplexityResult measure_perplexity(const ModelPackage& model, std::string_view text,
                                    const PerplexityOptions& options) {
  return measure_perplexity(model, model.tokenizer->encode(text), options);
}

}  // namespace potstill
