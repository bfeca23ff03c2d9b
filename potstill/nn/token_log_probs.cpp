#include "potstill/nn/token_log_probs.h"

#include <algorithm>

namespace potstill {

TokenLogProbs token_log_probs(const at::Tensor& hidden, const at::Tensor& targets,
                              const std::function<at::Tensor(const at::Tensor&)>& head) {
  const at::NoGradGuard no_grad;
  constexpr int64_t kPositions = 256;  // 50 MB of fp32 logits at a vocabulary of 49,152
  const int64_t count = hidden.size(0);
  TokenLogProbs result{at::empty({count}, at::kDouble), at::empty({count}, at::kBool)};
  for (int64_t begin = 0; begin < count; begin += kPositions) {
    const int64_t end = std::min(begin + kPositions, count);
    const auto logits = head(hidden.slice(0, begin, end));
    const auto target = targets.slice(0, begin, end).to(logits.device());
    const auto chosen = logits.gather(1, target.unsqueeze(1)).squeeze(1).to(at::kDouble);
    result.log_prob.slice(0, begin, end).copy_(chosen - logits.logsumexp(1).to(at::kDouble));
    result.is_argmax.slice(0, begin, end).copy_(logits.argmax(1).eq(target));
  }
  return result;
}

TokenLogProbs token_log_probs(const at::Tensor& hidden, const at::Tensor& targets, const at::Tensor& lm_head) {
  return token_log_probs(hidden, targets,
                         [&](const at::Tensor& rows) { return at::linear(rows, lm_head).to(at::kFloat); });
}

}  // namespace potstill
