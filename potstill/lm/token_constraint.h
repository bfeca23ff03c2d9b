// TokenConstraint: holds a stream of tokens to a grammar over bytes.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "potstill/lm/grammar.h"
#include "potstill/lm/sampling.h"
#include "potstill/text/tokenizer.h"

namespace potstill {

// The bytes of every token that text may be made of, in the order of the bytes: neighbours share their beginnings, and
// with them the work of matching.
class VocabularyBytes {
 public:
  VocabularyBytes(const Tokenizer& tokenizer, int64_t vocab_size);

 private:
  friend class TokenConstraint;
  std::vector<std::string> bytes_;  // by id; empty: a special token, which is no text
  std::vector<TokenId> sorted_;     // ids with text
  std::vector<uint32_t> shared_;    // bytes that sorted_[i] shares with sorted_[i - 1]
};

class TokenConstraint {
 public:
  TokenConstraint(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const VocabularyBytes> vocabulary,
                  std::vector<TokenId> stop_ids);

  bool allows(TokenId id);
  void accept(TokenId id);             // allows(id) must hold
  bool finished() const;               // complete: nothing but a stop token may follow
  void mask(std::span<float> logits);  // -inf for every id that may not follow

 private:
  bool is_stop(TokenId id) const;
  std::shared_ptr<const Grammar> grammar_;
  std::shared_ptr<const VocabularyBytes> vocabulary_;
  std::vector<TokenId> stop_ids_;
  GrammarMatcher matcher_;
  GrammarMatcher::State state_;
};

// As sampler.sample(), of the tokens that the constraint allows. The vocabulary is matched only where the free draw is
// not allowed: a draw that is refused once and repeated among the allowed has the distribution of those.
TokenId sample_constrained(Sampler& sampler, std::span<const float> logits, std::span<const TokenId> context,
                           size_t num_prompt, TokenConstraint& constraint);

}  // namespace potstill
