#include "potstill/lm/request_tokens.h"

#include <algorithm>

#include "potstill/base/error.h"

namespace potstill {
namespace {

// As the harness: special tokens are added unless the text already begins with BOS.
std::vector<TokenId> encode_once(const Tokenizer& tokenizer, const std::string& text) {
  const auto bos = tokenizer.vocabulary().bos;
  const bool has_bos = bos && text.rfind(tokenizer.vocabulary().tokens[static_cast<size_t>(*bos)], 0) == 0;
  return tokenizer.encode(text, !has_bos);
}

// str.rstrip() over the blanks that prompts have; Unicode's rarer ones are left in the context.
size_t length_without_blanks(const std::string& text) { return text.find_last_not_of(" \t\n\r\f\v") + 1; }

}  // namespace

std::vector<TokenId> prompt_tokens(const Tokenizer& tokenizer, const ChatTemplate& chat_template,
                                   const std::vector<ChatMessage>& messages, const std::string& prompt,
                                   const std::string& answer_prefix) {
  if (messages.empty()) return encode_once(tokenizer, prompt + answer_prefix);
  return tokenizer.encode(chat_template.render(messages, true) + answer_prefix, false);
}

ScoreTokens score_tokens(const Tokenizer& tokenizer, const ScoreRequest& request) {
  const size_t kept = length_without_blanks(request.context);
  const std::string context = request.context.substr(0, kept);
  const std::string continuation = request.context.substr(kept) + request.continuation;
  ScoreTokens tokens;
  if (context.empty()) {
    tokens.continuation = tokenizer.encode(continuation, false);
    const auto& vocabulary = tokenizer.vocabulary();
    const auto prefix = vocabulary.bos ? vocabulary.bos : vocabulary.eos;
    if (!prefix) {
      throw Error(ErrorKind::kInput, "score", "an empty context needs a BOS or EOS token and the tokenizer has none",
                  "give a context");
    }
    if (!tokens.continuation.empty() && tokens.continuation.front() == *prefix) {
      tokens.continuation.erase(tokens.continuation.begin());
    }
    tokens.context = {*prefix};
  } else {
    tokens.context = encode_once(tokenizer, context);
    const auto whole = encode_once(tokenizer, context + continuation);
    const size_t seam = std::min(tokens.context.size(), whole.size());
    tokens.continuation.assign(whole.begin() + static_cast<ptrdiff_t>(seam), whole.end());
  }
  if (tokens.continuation.empty()) {
    throw Error(ErrorKind::kInput, "score", "the continuation '" + request.continuation + "' has no token of its own",
                "give a continuation that is not empty");
  }
  return tokens;
}

}  // namespace potstill
