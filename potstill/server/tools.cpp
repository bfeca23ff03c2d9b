#include "potstill/server/tools.h"

#include <fmt/format.h>

#include <optional>

#include "potstill/base/error.h"
#include "potstill/formats/strict_json.h"
#include "potstill/lm/json_grammar.h"
#include "potstill/server/api_error.h"
#include "potstill/server/json_fields.h"

namespace potstill::server {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kOpen = "<tool_call>", kClose = "</tool_call>";
constexpr size_t kMaxTools = 128;

struct Tool {
  std::string name;
  Json function;    // as the model is told of it
  Json parameters;  // schema
  bool strict = false;
};

std::vector<Tool> read_list(const Json& list) {
  if (!list.is_array() || list.size() > kMaxTools) {
    throw ApiError(400, fmt::format("tools must be an array of at most {}", kMaxTools), "tools");
  }
  std::vector<Tool> tools;
  for (size_t i = 0; i < list.size(); ++i) {
    JsonFields fields(list[i], fmt::format("tools[{}]", i));
    if (fields.string("type").value_or("") != "function") fields.refuse("type", "must be 'function'");
    const Json* function = fields.object("function");
    if (function == nullptr) fields.refuse("function", "is missing");
    fields.finish();
    JsonFields inner(*function, fields.at("function"));
    Tool tool;
    tool.name = inner.string("name").value_or("");
    if (tool.name.empty() || tool.name.size() > 64) inner.refuse("name", "must be a string of 1 to 64 characters");
    inner.string("description");
    const Json* parameters = inner.object("parameters");
    tool.parameters = parameters != nullptr ? *parameters : Json{{"type", "object"}};
    tool.strict = inner.boolean("strict").value_or(false);
    inner.finish();
    tool.function = *function;
    tools.push_back(std::move(tool));
  }
  return tools;
}

// What Qwen2.5's own chat template tells its models; others were trained on the same words or read them as plain text.
std::string describe(const std::vector<Tool>& tools) {
  std::string text =
      "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
      "You are provided with function signatures within <tools></tools> XML tags:\n<tools>";
  for (const Tool& tool : tools) text += "\n" + dump(Json{{"type", "function"}, {"function", tool.function}});
  return text +
         "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
         "<tool_call></tool_call> XML tags:\n<tool_call>\n"
         "{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>";
}

// One call of one of the tools. Arguments follow the schema; one that cannot be kept binds only where the tool is
// strict.
std::shared_ptr<const Grammar> call_grammar(const std::vector<Tool>& tools) {
  auto grammar = std::make_shared<Grammar>();
  const Grammar::RuleId call = grammar->add_rule();
  for (const Tool& tool : tools) {
    Grammar arguments;
    try {
      arguments = json_schema_grammar(tool.parameters, fmt::format("parameters of tool '{}'", tool.name));
    } catch (const Error& error) {
      if (tool.strict) throw api_error(error);
      arguments = json_object_grammar();
    }
    auto way = Grammar::text(fmt::format("{{\"name\": {}, \"arguments\": ", dump(Json(tool.name))));
    way.push_back(Grammar::rule(grammar->include(arguments)));
    way.push_back(Grammar::one_of("}"));
    grammar->add_alternative(call, std::move(way));
  }
  grammar->set_start(call);
  grammar->surround(std::string(kOpen) + "\n", "\n" + std::string(kClose));
  return grammar;
}

std::optional<ToolCall> parse_call(const std::string& text) {
  try {
    const Json call = parse_strict_ordered_json(text, "tool call", 64);
    if (!call.is_object() || !call.contains("name") || !call["name"].is_string()) return std::nullopt;
    const Json arguments = call.value("arguments", Json::object());
    return ToolCall{call["name"].get<std::string>(),
                    arguments.is_string() ? arguments.get<std::string>() : dump(arguments)};
  } catch (const Error&) {
    return std::nullopt;
  }
}

// Bytes at the end of `text` that may be the beginning of `mark`.
size_t torn(std::string_view text, std::string_view mark) {
  for (size_t n = std::min(mark.size() - 1, text.size()); n > 0; --n) {
    if (text.substr(text.size() - n) == mark.substr(0, n)) return n;
  }
  return 0;
}

}  // namespace

ToolUse read_tools(const Json* list, const Json* choice) {
  ToolUse use;
  std::vector<Tool> tools;
  if (list != nullptr) tools = read_list(*list);
  std::string word = choice != nullptr && choice->is_string() ? choice->get<std::string>() : "";
  if (choice != nullptr && choice->is_object()) {
    JsonFields fields(*choice, "tool_choice");
    fields.string("type");
    const Json* function = fields.object("function");
    const std::string name =
        function != nullptr ? JsonFields(*function, "tool_choice.function").string("name").value_or("") : "";
    std::vector<Tool> named;
    for (const Tool& tool : tools) {
      if (tool.name == name) named.push_back(tool);
    }
    if (named.empty()) fields.refuse("function", fmt::format("names '{}', which is none of the tools", name));
    use.grammar = call_grammar(named);
  } else if (word == "required") {
    if (tools.empty()) throw ApiError(400, "tool_choice is 'required' but there are no tools", "tool_choice");
    use.grammar = call_grammar(tools);
  } else if (choice != nullptr && word != "auto" && word != "none") {
    throw ApiError(400, "tool_choice must be 'none', 'auto', 'required' or {\"type\": \"function\", …}", "tool_choice");
  }
  if (word == "none" || tools.empty()) return use;
  use.offered = true;
  use.system_text = describe(tools);
  return use;
}

std::string tool_calls_text(const Json& tool_calls, const std::string& path) {
  if (!tool_calls.is_array()) throw ApiError(400, path + " must be an array", path);
  std::string text;
  for (size_t i = 0; i < tool_calls.size(); ++i) {
    JsonFields fields(tool_calls[i], fmt::format("{}[{}]", path, i));
    const Json* function = fields.object("function");
    if (function == nullptr) fields.refuse("function", "is missing");
    JsonFields inner(*function, fields.at("function"));
    Json arguments = Json::object();
    const std::string written = inner.string("arguments").value_or("");
    try {
      if (!written.empty()) arguments = parse_strict_ordered_json(written, inner.at("arguments"), 64);
    } catch (const Error& error) {
      throw api_error(error);
    }
    text += fmt::format("{}{}\n{}\n{}", text.empty() ? "" : "\n", kOpen,
                        dump(Json{{"name", inner.string("name").value_or("")}, {"arguments", arguments}}), kClose);
  }
  return text;
}

ToolCallParser::Piece ToolCallParser::push(std::string_view text) {
  Piece piece;
  held_ += text;
  for (;;) {
    const std::string_view mark = in_call_ ? kClose : kOpen;
    const size_t found = held_.find(mark);
    if (found == std::string::npos) break;
    const std::string before = held_.substr(0, found);
    held_.erase(0, found + mark.size());
    if (!in_call_) {
      if (before.find_first_not_of(" \n") != std::string::npos) piece.text += before;
    } else if (auto call = parse_call(before)) {
      piece.calls.push_back(std::move(*call));
      after_call_ = true;
    } else {
      piece.text += std::string(kOpen) + before + std::string(kClose);
    }
    in_call_ = !in_call_;
  }
  if (in_call_) return piece;
  // Blanks before a call, or between two, are no text of the answer.
  const size_t keep = held_.find_first_not_of(" \n") == std::string::npos ? held_.size() : torn(held_, kOpen);
  piece.text += held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return piece;
}

ToolCallParser::Piece ToolCallParser::finish() {
  Piece piece;
  if (in_call_) {  // a model may leave out the closing mark when its turn ends
    if (auto call = parse_call(held_)) {
      piece.calls.push_back(std::move(*call));
    } else {
      piece.text = std::string(kOpen) + held_;
    }
  } else if (!after_call_ || held_.find_first_not_of(" \n") != std::string::npos) {
    piece.text = held_;
  }
  held_.clear();
  return piece;
}

}  // namespace potstill::server
