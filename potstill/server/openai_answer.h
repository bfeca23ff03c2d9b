// Answers of OpenAI's API: the JSON of whole answers and of a stream's chunks.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "potstill/lm/text_engine.h"
#include "potstill/server/tools.h"

namespace potstill::server {

// What every object of one answer says of itself.
struct AnswerHead {
  bool is_chat = false;
  std::string id, model;
  int64_t created = 0;  // seconds since 1970
};

struct Usage {
  int64_t prompt_tokens = 0, cached_tokens = 0, completion_tokens = 0;
};

// One choice as it grows, and as it is when done.
struct Choice {
  int64_t index = 0;
  std::string text;
  std::vector<ToolCall> calls;
  std::vector<TokenLogProbs> log_probs;  // of what was asked for, echoed prompt first
  bool has_log_probs = false;
  std::string finish_reason;  // "" = not yet
  int64_t text_offset = 0;    // of log_probs[0] in the choice's text, in characters (code points)
};

nlohmann::ordered_json whole_answer(const AnswerHead& head, const std::vector<Choice>& choices, const Usage& usage,
                                    const Tokenizer& tokenizer);
// A chunk of a stream: what `choice` has more than before. is_first: with the role.
nlohmann::ordered_json chunk(const AnswerHead& head, const Choice& choice, bool is_first, int64_t first_call,
                             const Tokenizer& tokenizer);
nlohmann::ordered_json usage_chunk(const AnswerHead& head, const Usage& usage);

std::string finish_reason(EngineFinish finish, bool has_calls);
// A token as the API spells it: its text, or "bytes:\xNN…" where that is no UTF-8.
std::string token_text(const Tokenizer& tokenizer, TokenId id);
// Code points of UTF-8 text.
int64_t num_characters(std::string_view text);

}  // namespace potstill::server
