// Sequence: one request of the scheduler from its prompt to its last token.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "potstill/edge/slot.h"
#include "potstill/edge/stop_strings.h"
#include "potstill/lm/sampling.h"
#include "potstill/lm/text_engine.h"
#include "potstill/lm/token_constraint.h"
#include "potstill/text/tokenizer.h"

namespace potstill::edge {

class Sequence {
 public:
  // Throws Error(kUsage) for settings out of range.
  Sequence(TextEngine::RequestId id, size_t index, EngineRequest request, TextEngine::OnEvent on_event,
           const Tokenizer& tokenizer, std::span<const TokenId> stop_ids,
           std::shared_ptr<const VocabularyBytes> vocabulary);

  TextEngine::RequestId id;
  EngineRequest request;
  Slot* slot = nullptr;
  bool started = false;       // its prompt's beginning was looked for in the slots
  int64_t cached_tokens = 0;  // of the prompt, found there
  bool ended = false;         // the last event went out
  uint64_t group = 0;         // requests that were submitted together
  int64_t turn_tokens = 0;    // of the answer, made since it last got a place among the running ones

  std::span<const TokenId> tokens() const { return tokens_; }  // prompt and answer
  bool reads_prompt() const { return slot->tokens.size() < request.prompt.size(); }
  int64_t num_new() const { return static_cast<int64_t>(tokens_.size() - request.prompt.size()); }

  void send_prompt(std::vector<TokenLogProbs> log_probs);
  // Draws the next token out of logits [V], sends it, and ends the sequence where it has to end.
  void next_token(std::span<const float> logits, bool context_is_full);
  void end(EngineFinish finish, std::exception_ptr error = nullptr);

 private:
  void finish_text(EngineFinish finish);

  size_t index_;
  TextEngine::OnEvent on_event_;
  std::vector<TokenId> tokens_, stop_ids_;
  Sampler sampler_;
  StreamDecoder decoder_;
  StopStrings stops_;
  std::optional<TokenConstraint> constraint_;
};

// log p of `id` under logits [V] and the `num_top` likeliest, best first.
TokenLogProbs token_log_probs(std::span<const float> logits, TokenId id, int num_top);

}  // namespace potstill::edge
