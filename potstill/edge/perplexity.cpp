#include "potstill/edge/perplexity.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "potstill/base/error.h"
#include "potstill/base/interrupt.h"

namespace potstill::edge {

EdgePerplexity measure_perplexity(EdgeModel& model, std::span<const TokenId> tokens, int64_t window,
                                  const std::function<void(size_t)>& progress) {
  KvCache& cache = model.cache();
  if (window < 2 || window > cache.capacity()) {
    throw Error(ErrorKind::kUsage, "--window", fmt::format("is {} but must be in [2, {}]", window, cache.capacity()));
  }
  EdgePerplexity result;
  for (size_t begin = 0; begin + 1 < tokens.size(); begin += static_cast<size_t>(window)) {
    throw_if_interrupted();
    const auto part = tokens.subspan(begin, std::min(static_cast<size_t>(window), tokens.size() - begin));
    cache.set_length(0);
    model.forward().prompt(part.first(part.size() - 1), cache, [&](size_t i, std::span<const float> logits) {
      result.mean_nll += log_sum_exp(logits) - logits[static_cast<size_t>(part[i + 1])];
      ++result.scored_tokens;
    });
    if (progress) progress(begin + part.size());
  }
  if (result.scored_tokens == 0) {
    throw Error(ErrorKind::kInput, "--text", fmt::format("has {} tokens: nothing to score", tokens.size()),
                "give a longer text");
  }
  result.mean_nll /= static_cast<double>(result.scored_tokens);
  result.perplexity = std::exp(result.mean_nll);
  return result;
}

}  // namespace potstill::edge
