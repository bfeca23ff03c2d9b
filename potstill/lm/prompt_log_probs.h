// What an endpoint says of the tokens of a prompt, out of the two ways in which servers say it.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "potstill/text/tokenizer.h"

namespace potstill {

struct PromptLogProbs {
  struct Entry {
    std::optional<TokenId> id;  // vLLM tells it
    std::string text;           // as the endpoint spells it; empty where it does not
    double log_prob = 0;        // natural; NaN = not told
  };
  struct Position {
    Entry token;             // that stands in the prompt
    std::vector<Entry> top;  // the likeliest, in any order; empty for the first token, which nothing predicts
  };
  std::vector<Position> tokens;
};

enum class LogProbDialect {
  kVllm,  // prompt_logprobs: k -> choices[0].prompt_logprobs [null, {"id": {logprob, rank, decoded_token}}, …]
  kEcho,  // echo, logprobs: k -> choices[0].logprobs {tokens, token_logprobs, top_logprobs}      OpenAI's completions
};

// The fields that ask for it, to be added to a request of /completions.
nlohmann::json log_prob_fields(LogProbDialect dialect, int64_t top_k);

// Reads one choice. Nothing when it does not hold what was asked for; prompt: the token ids that were sent.
std::optional<PromptLogProbs> read_prompt_log_probs(LogProbDialect dialect, const nlohmann::json& choice,
                                                    const std::vector<TokenId>& prompt);

// The ids behind texts: a tokenizer's tokens by their bytes. Where two tokens have the same bytes the first counts.
class TokenTexts {
 public:
  explicit TokenTexts(const Tokenizer& tokenizer);
  // "token_id:17" (vLLM), "bytes:\xe2\x80" (OpenAI) or the text itself; nothing for what is no token.
  std::optional<TokenId> id_of(const std::string& text) const;
  // Whether `text` spells the token `id`: false only where both are known and differ.
  bool spells(const std::string& text, TokenId id) const;

 private:
  const Tokenizer& tokenizer_;
  std::vector<std::pair<std::string, TokenId>> ids_;  // sorted by bytes, then id
};

}  // namespace potstill
