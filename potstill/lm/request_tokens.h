// Requests as token ids: one reading of them for every LanguageModel.
#pragma once

#include <vector>

#include "potstill/lm/language_model.h"
#include "potstill/text/tokenizer.h"

namespace potstill {

// The prompt behind messages (rendered, the template writes its own BOS) or, when there are none, behind raw text (BOS
// where the tokenizer adds one), with answer_prefix after it.
std::vector<TokenId> prompt_tokens(const Tokenizer& tokenizer, const ChatTemplate& chat_template,
                                   const std::vector<ChatMessage>& messages, const std::string& prompt,
                                   const std::string& answer_prefix);

struct ScoreTokens {
  std::vector<TokenId> context;  // at least one
  std::vector<TokenId> continuation;
};

// lm-evaluation-harness 0.4's rules (lm_eval/api/model.py, TemplateLM): blanks at the context's end go to the
// continuation; the seam is where the context's own encoding ends; an empty context is one BOS, or EOS where there is
// none. Throws Error(kInput) when the continuation has no token.
ScoreTokens score_tokens(const Tokenizer& tokenizer, const ScoreRequest& request);

}  // namespace potstill
