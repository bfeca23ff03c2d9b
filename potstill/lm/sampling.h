// Sampler: draws token ids out of logits by a request's SamplingParams.
#pragma once

#include <span>
#include <utility>
#include <vector>

#include "potstill/base/rng.h"
#include "potstill/lm/language_model.h"
#include "potstill/text/tokenizer.h"

namespace potstill {

// The filters apply in transformers' order: bias and penalties, temperature, top-k, top-p, min-p; then one uniform draw
// from the stream of params.seed. Temperature 0 takes the largest logit (the lowest id of equals) and draws nothing.
class Sampler {
 public:
  // Throws Error(kUsage) for a setting outside its range.
  explicit Sampler(const SamplingParams& params);

  // logits [V], finite or -inf; context: prompt and answer so far, read by the penalties alone: repetition_penalty
  // counts all of it, the other two what follows its first num_prompt tokens. Throws Error(kNumeric) when no logit is
  // finite.
  TokenId sample(std::span<const float> logits, std::span<const TokenId> context, size_t num_prompt = 0);

 private:
  bool changes_logits() const;
  void penalize(std::span<const TokenId> context, size_t num_prompt);
  TokenId draw();

  SamplingParams params_;
  Rng rng_;
  std::vector<float> logits_;  // penalized copy
  std::vector<TokenId> seen_;
  std::vector<std::pair<float, TokenId>> candidates_;  // (logit / temperature, id), a max-heap while it is cut
};

// Id of the largest value, the lowest of equals; NaN never wins. -1 when nothing is finite.
TokenId argmax(std::span<const float> logits);

// log p of every id would be a vocabulary of memory; this is the one number it needs: log Σ exp(logit), in double.
double log_sum_exp(std::span<const float> logits);

}  // namespace potstill
