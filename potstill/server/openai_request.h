// Requests of OpenAI's API, read and checked: /v1/chat/completions and /v1/completions.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "potstill/lm/grammar.h"
#include "potstill/lm/text_engine.h"
#include "potstill/server/tools.h"
#include "potstill/text/chat_template.h"

namespace potstill::server {

struct CompletionRequest {
  bool is_chat = false;
  std::string model;                  // "" = whatever is served
  std::vector<ChatMessage> messages;  // of a chat, tools and tool results written into them
  std::vector<std::variant<std::string, std::vector<TokenId>>> prompts;  // of a completion
  int64_t num_choices = 1;                                               // for each prompt
  bool stream = false, stream_usage = false, echo = false;
  std::optional<int64_t> max_tokens;
  EngineRequest engine;  // sampling, stop strings, log-probabilities, grammar; the prompt comes later
  ToolUse tools;
};

// Throw ApiError(400) that names the field. Unknown fields are errors: they would not do what the client thinks.
CompletionRequest read_chat_request(const nlohmann::ordered_json& body);
CompletionRequest read_completion_request(const nlohmann::ordered_json& body);

}  // namespace potstill::server
