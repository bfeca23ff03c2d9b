// Tool calls: OpenAI's fields <-> the text in which models were trained to call tools: JSON between <tool_call> marks,
// as Qwen2.5, Qwen3 and the Hermes models have it.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "potstill/lm/grammar.h"
#include "potstill/text/chat_template.h"

namespace potstill::server {

struct ToolUse {
  bool offered = false;                    // calls are looked for in the answer
  std::string system_text;                 // tells the model of the tools; "" = none
  std::shared_ptr<const Grammar> grammar;  // the answer has to be a call
};

// `tools` and `tool_choice` of a request; null where absent. Throws ApiError(400).
ToolUse read_tools(const nlohmann::ordered_json* tools, const nlohmann::ordered_json* tool_choice);

// The calls of an earlier answer of the assistant, as the model wrote them.
std::string tool_calls_text(const nlohmann::ordered_json& tool_calls, const std::string& path);

struct ToolCall {
  std::string name, arguments;  // arguments: JSON text
};

// Takes an answer apart while it comes: text, and calls when their closing mark has come.
class ToolCallParser {
 public:
  struct Piece {
    std::string text;
    std::vector<ToolCall> calls;
  };
  Piece push(std::string_view text);
  Piece finish();  // what was held back; an unfinished call is given as the text that it is

 private:
  std::string held_;
  bool in_call_ = false, after_call_ = false;
};

}  // namespace potstill::server
