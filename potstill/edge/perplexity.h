// Perplexity of a text on the edge runtime, in the arithmetic that it will be run with.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "potstill/edge/edge_model.h"

namespace potstill::edge {

struct EdgePerplexity {
  double mean_nll = 0, perplexity = 0;  // nats, summed in double
  int64_t scored_tokens = 0;
};

// Windows of `window` tokens that do not overlap, all but the first token of each scored: what `potstill perplexity`
// measures. A last window of one token is left out. Throws Error(kUsage) for a window that does not fit the context,
// Error(kInput) when nothing is left to score, Error(kInterrupted) on Ctrl-C.
EdgePerplexity measure_perplexity(EdgeModel& model, std::span<const TokenId> tokens, int64_t window,
                                  const std::function<void(size_t tokens_done)>& progress = {});

}  // namespace potstill::edge
