#include "potstill/edge/slot.h"

#include <algorithm>

namespace potstill::edge {

size_t common_prefix(std::span<const TokenId> a, std::span<const TokenId> b) {
  const size_t limit = std::min(a.size(), b.size());
  size_t n = 0;
  while (n < limit && a[n] == b[n]) ++n;
  return n;
}

size_t Slot::shared_with(const EngineRequest& request) const {
  const size_t usable = request.reuse_answers ? tokens.size() : as_prompt;
  size_t shared = common_prefix(std::span(tokens).first(usable), std::span(request.prompt));
  shared = std::min(shared, request.prompt.size() - 1);
  if (!request.prompt_log_probs) return shared;
  // Position n predicts token n + 1, which may be another than here: the last position that is shared is computed
  // again.
  if (num_top < request.num_top || log_probs.empty()) return 0;
  return std::min(shared, std::min(shared, log_probs.size()) - (shared > 0 ? 1 : 0));
}

void Slot::begin_with(Slot& other, size_t count, bool same_next_token) {
  const size_t num_log_probs = count + (same_next_token ? 1 : 0);
  if (&other != this) {
    cache.copy_beginning(other.cache, static_cast<int64_t>(count));
    tokens.assign(other.tokens.begin(), other.tokens.begin() + static_cast<ptrdiff_t>(count));
    as_prompt = other.as_prompt;
    log_probs.assign(other.log_probs.begin(),
                     other.log_probs.begin() + static_cast<ptrdiff_t>(std::min(num_log_probs, other.log_probs.size())));
    num_top = other.num_top;
  }
  tokens.resize(count);
  as_prompt = std::min(as_prompt, count);
  if (log_probs.size() > num_log_probs) log_probs.resize(num_log_probs);
  cache.set_length(static_cast<int64_t>(count));
}

}  // namespace potstill::edge
