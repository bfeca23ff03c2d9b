#include "potstill/server/openai_request.h"

#include <fmt/format.h>

#include <charconv>

#include "potstill/base/error.h"
#include "potstill/lm/json_grammar.h"
#include "potstill/server/api_error.h"
#include "potstill/server/json_fields.h"

namespace potstill::server {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kMaxChoices = 16, kMaxPrompts = 128, kMaxTop = 20, kMaxTokens = int64_t{1} << 24;
constexpr size_t kMaxStops = 16, kMaxStopBytes = 256, kMaxBiases = 1024, kMaxMessages = 2048;

void read_stop(JsonFields& fields, EngineRequest& engine) {
  const Json* stop = fields.any("stop");
  if (stop == nullptr) return;
  const Json list = stop->is_string() ? Json::array({*stop}) : *stop;
  if (!list.is_array() || list.size() > kMaxStops) {
    fields.refuse("stop", fmt::format("must be a string or an array of at most {}", kMaxStops));
  }
  for (const Json& each : list) {
    if (!each.is_string() || each.get_ref<const std::string&>().size() > kMaxStopBytes) {
      fields.refuse("stop", fmt::format("must hold strings of at most {} bytes", kMaxStopBytes));
    }
    engine.stop.push_back(each.get<std::string>());
  }
}

void read_logit_bias(JsonFields& fields, SamplingParams& sampling) {
  const Json* bias = fields.object("logit_bias");
  if (bias == nullptr) return;
  if (bias->size() > kMaxBiases) fields.refuse("logit_bias", fmt::format("has more than {} entries", kMaxBiases));
  for (const auto& [key, value] : bias->items()) {
    int32_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id < 0) {
      fields.refuse("logit_bias", fmt::format("has the key '{}', which is no token id", key));
    }
    if (!value.is_number() || !(std::abs(value.get<double>()) <= 100)) {
      fields.refuse("logit_bias", "must hold numbers in [-100, 100]");
    }
    sampling.logit_bias.emplace_back(id, value.get<float>());
  }
}

// What both kinds have in common. OpenAI's defaults: temperature 1, top_p 1.
void read_common(JsonFields& fields, CompletionRequest& request) {
  request.model = fields.string("model").value_or("");
  request.num_choices = fields.integer("n", 1, kMaxChoices).value_or(1);
  request.stream = fields.boolean("stream").value_or(false);
  if (const Json* options = fields.object("stream_options")) {
    JsonFields inner(*options, "stream_options");
    request.stream_usage = inner.boolean("include_usage").value_or(false);
    inner.ignore({"include_obfuscation"});
    inner.finish();
    if (!request.stream) fields.refuse("stream_options", "is only for stream: true");
  }
  SamplingParams& sampling = request.engine.sampling;
  sampling.temperature = fields.number("temperature", 0, 2).value_or(1);
  sampling.top_p = fields.number("top_p", 0, 1).value_or(1);
  sampling.top_k = fields.integer("top_k", -1, 1'000'000).value_or(0);
  if (sampling.top_k < 0) sampling.top_k = 0;  // -1: vLLM's "all"
  sampling.min_p = fields.number("min_p", 0, 1).value_or(0);
  sampling.repetition_penalty = fields.number("repetition_penalty", 0.01, 100).value_or(1);
  sampling.presence_penalty = fields.number("presence_penalty", -2, 2).value_or(0);
  sampling.frequency_penalty = fields.number("frequency_penalty", -2, 2).value_or(0);
  read_logit_bias(fields, sampling);
  read_stop(fields, request.engine);
  if (const auto seed = fields.integer("seed", INT64_MIN, INT64_MAX)) {
    sampling.seed = static_cast<uint64_t>(*seed);
    request.engine.reuse_answers = false;  // the same text whatever was asked before
  } else {
    sampling.seed = 0;
    request.engine.reuse_answers = true;
  }
  fields.ignore({"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"});
}

void read_response_format(JsonFields& fields, EngineRequest& engine) {
  const Json* format = fields.object("response_format");
  if (format == nullptr) return;
  JsonFields inner(*format, "response_format");
  const std::string type = inner.string("type").value_or("");
  if (type == "json_object") {
    engine.grammar = std::make_shared<Grammar>(json_object_grammar());
  } else if (type == "json_schema") {
    const Json* json_schema = inner.object("json_schema");
    if (json_schema == nullptr) inner.refuse("json_schema", "is missing");
    JsonFields named(*json_schema, "response_format.json_schema");
    named.ignore({"name", "description", "strict"});
    const Json* schema = named.object("schema");
    if (schema == nullptr) named.refuse("schema", "is missing");
    named.finish();
    engine.grammar = std::make_shared<Grammar>(json_schema_grammar(*schema, "response_format.json_schema.schema"));
  } else if (type != "text") {
    inner.refuse("type", "must be 'text', 'json_object' or 'json_schema'");
  }
  inner.finish();
}

// A string, or parts of which each is text.
std::string read_content(JsonFields& fields) {
  const Json* content = fields.any("content");
  if (content == nullptr) return {};
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array()) fields.refuse("content", "must be a string or an array of parts");
  std::string text;
  for (size_t i = 0; i < content->size(); ++i) {
    JsonFields part((*content)[i], fmt::format("{}[{}]", fields.at("content"), i));
    const std::string type = part.string("type").value_or("");
    if (type != "text") part.refuse("type", fmt::format("is '{}', but this model reads text alone", type));
    text += part.string("text").value_or("");
    part.finish();
  }
  return text;
}

// Results of tools stand in the user's turn, as in Qwen's chat template; neighbours share one.
void add_tool_result(std::vector<ChatMessage>& messages, bool follows_result, const std::string& content) {
  const std::string text = "<tool_response>\n" + content + "\n</tool_response>";
  if (follows_result) {
    messages.back().content += "\n" + text;
  } else {
    messages.push_back({"user", text});
  }
}

void read_messages(JsonFields& fields, CompletionRequest& request) {
  const Json* list = fields.array("messages");
  if (list == nullptr || list->empty()) fields.refuse("messages", "must be an array with at least one message");
  if (list->size() > kMaxMessages) fields.refuse("messages", fmt::format("has more than {} entries", kMaxMessages));
  bool follows_result = false;
  for (size_t i = 0; i < list->size(); ++i) {
    JsonFields message((*list)[i], fmt::format("messages[{}]", i));
    std::string role = message.string("role").value_or("");
    std::string content = read_content(message);
    message.ignore({"name", "refusal", "audio", "annotations"});
    if (role == "developer") role = "system";
    if (role == "tool") {
      message.string("tool_call_id");
      message.finish();
      add_tool_result(request.messages, follows_result, content);
      follows_result = true;
      continue;
    }
    follows_result = false;
    if (role != "system" && role != "user" && role != "assistant") {
      message.refuse("role", "must be 'system', 'developer', 'user', 'assistant' or 'tool'");
    }
    if (role == "assistant") {
      if (const Json* calls = message.any("tool_calls"); calls != nullptr && !calls->empty()) {
        content += (content.empty() ? "" : "\n") + tool_calls_text(*calls, message.at("tool_calls"));
      }
    } else if (content.empty() && role == "user") {
      message.refuse("content", "is empty");
    }
    message.finish();
    request.messages.push_back({role, content});
  }
}

// The tools' description goes behind the system text, or into a system message of its own.
void describe_tools(CompletionRequest& request) {
  if (request.tools.system_text.empty()) return;
  auto& messages = request.messages;
  if (messages.front().role == "system") {
    messages.front().content += "\n\n" + request.tools.system_text;
  } else {
    messages.insert(messages.begin(), {"system", request.tools.system_text});
  }
}

void read_prompt(JsonFields& fields, CompletionRequest& request) {
  const Json* prompt = fields.any("prompt");
  if (prompt == nullptr) fields.refuse("prompt", "is missing");
  const auto is_ids = [](const Json& value) { return value.is_array() && !value.empty() && value[0].is_number(); };
  const Json list = prompt->is_string() || is_ids(*prompt) ? Json::array({*prompt}) : *prompt;
  if (!list.is_array() || list.empty() || list.size() > static_cast<size_t>(kMaxPrompts)) {
    fields.refuse("prompt", fmt::format("must be a string, token ids, or an array of 1 to {} of them", kMaxPrompts));
  }
  for (const Json& each : list) {
    if (each.is_string()) {
      request.prompts.emplace_back(each.get<std::string>());
      continue;
    }
    if (!is_ids(each)) fields.refuse("prompt", "must hold strings or arrays of token ids, none of them empty");
    std::vector<TokenId> ids;
    for (const Json& id : each) {
      if (!id.is_number_integer() || id < 0 || id > INT32_MAX)
        fields.refuse("prompt", "holds something that is no token id");
      ids.push_back(id.get<TokenId>());
    }
    request.prompts.emplace_back(std::move(ids));
  }
}

}  // namespace

CompletionRequest read_chat_request(const Json& body) {
  JsonFields fields(body, "");
  CompletionRequest request;
  request.is_chat = true;
  read_messages(fields, request);
  read_common(fields, request);
  request.max_tokens = fields.integer("max_completion_tokens", 1, kMaxTokens);
  if (const auto older = fields.integer("max_tokens", 1, kMaxTokens); older && !request.max_tokens) {
    request.max_tokens = older;
  }
  const auto top = fields.integer("top_logprobs", 0, kMaxTop);
  if (fields.boolean("logprobs").value_or(false)) {
    request.engine.num_top = static_cast<int>(top.value_or(0));
  } else if (top) {
    fields.refuse("top_logprobs", "is only for logprobs: true");
  }
  read_response_format(fields, request.engine);
  request.tools = read_tools(fields.array("tools"), fields.any("tool_choice"));
  if (request.tools.grammar) {
    if (request.engine.grammar)
      fields.refuse("tool_choice", "forces a call, which is no answer in the response_format");
    request.engine.grammar = request.tools.grammar;
  }
  fields.boolean("parallel_tool_calls");
  fields.finish();
  describe_tools(request);
  return request;
}

CompletionRequest read_completion_request(const Json& body) {
  JsonFields fields(body, "");
  CompletionRequest request;
  read_prompt(fields, request);
  read_common(fields, request);
  request.max_tokens = fields.integer("max_tokens", 0, kMaxTokens);
  request.echo = fields.boolean("echo").value_or(false);
  if (const auto top = fields.integer("logprobs", 0, kMaxTop)) {
    request.engine.num_top = static_cast<int>(*top);
    request.engine.prompt_log_probs = request.echo;
    request.engine.reuse_answers = false;  // a score is the same whatever was asked before
  }
  if (const auto best_of = fields.integer("best_of", 1, kMaxChoices); best_of && *best_of != request.num_choices) {
    fields.refuse("best_of", "must be equal to n: every choice is returned");
  }
  if (const auto suffix = fields.string("suffix"); suffix && !suffix->empty()) {
    fields.refuse("suffix", "is for models that fill in a gap, which this one was not trained to do");
  }
  read_response_format(fields, request.engine);
  fields.finish();
  const auto total = static_cast<int64_t>(request.prompts.size()) * request.num_choices;
  if (total > kMaxPrompts) fields.refuse("n", fmt::format("times the prompts is {}, more than {}", total, kMaxPrompts));
  return request;
}

}  // namespace potstill::server
