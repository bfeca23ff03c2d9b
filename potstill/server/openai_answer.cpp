#include "potstill/server/openai_answer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "potstill/formats/strict_json.h"

namespace potstill::server {
namespace {

using Json = nlohmann::ordered_json;

std::string token_bytes(const Tokenizer& tokenizer, TokenId id) {
  return id < tokenizer.size() ? tokenizer.decode_bytes(std::span(&id, 1)) : std::string();
}

Json bytes_of(const std::string& text) {
  Json bytes = Json::array();
  for (const char c : text) bytes.push_back(static_cast<uint8_t>(c));
  return bytes;
}

// JSON has no infinities: OpenAI's own floor for what can not come.
Json log_prob(float value) {
  if (std::isnan(value)) return nullptr;
  return std::max(value, -9999.0f);
}

Json chat_token(const Tokenizer& tokenizer, TokenId id, float value) {
  return {{"token", token_text(tokenizer, id)},
          {"logprob", log_prob(value)},
          {"bytes", bytes_of(token_bytes(tokenizer, id))}};
}

Json chat_log_probs(const Choice& choice, const Tokenizer& tokenizer) {
  if (!choice.has_log_probs) return nullptr;
  Json content = Json::array();
  for (const TokenLogProbs& token : choice.log_probs) {
    Json entry = chat_token(tokenizer, token.id, token.log_prob);
    entry["top_logprobs"] = Json::array();
    for (const auto& [id, value] : token.top) entry["top_logprobs"].push_back(chat_token(tokenizer, id, value));
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

Json completion_log_probs(const Choice& choice, const Tokenizer& tokenizer) {
  if (!choice.has_log_probs) return nullptr;
  Json tokens = Json::array(), values = Json::array(), tops = Json::array(), offsets = Json::array();
  int64_t offset = choice.text_offset;
  for (const TokenLogProbs& token : choice.log_probs) {
    tokens.push_back(token_text(tokenizer, token.id));
    values.push_back(log_prob(token.log_prob));
    offsets.push_back(offset);
    offset += num_characters(token_bytes(tokenizer, token.id));
    Json top = std::isnan(token.log_prob) ? Json() : Json::object();  // nothing predicts the first one
    for (const auto& [id, value] : token.top) top[token_text(tokenizer, id)] = log_prob(value);
    tops.push_back(std::move(top));
  }
  return {{"tokens", std::move(tokens)},
          {"token_logprobs", std::move(values)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

Json calls_json(const AnswerHead& head, const Choice& choice, int64_t first, bool with_index) {
  Json calls = Json::array();
  for (size_t i = 0; i < choice.calls.size(); ++i) {
    const int64_t number = first + static_cast<int64_t>(i);
    Json call;
    if (with_index) call["index"] = number;
    call["id"] = fmt::format("call_{}_{}_{}", head.id.substr(head.id.find('-') + 1), choice.index, number);
    call["type"] = "function";
    call["function"] = {{"name", choice.calls[i].name}, {"arguments", choice.calls[i].arguments}};
    calls.push_back(std::move(call));
  }
  return calls;
}

Json usage_json(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}}};
}

Json object_of(const AnswerHead& head, const char* chat, const char* completion) {
  return {
      {"id", head.id}, {"object", head.is_chat ? chat : completion}, {"created", head.created}, {"model", head.model}};
}

Json reason_json(const Choice& choice) { return choice.finish_reason.empty() ? Json() : Json(choice.finish_reason); }

}  // namespace

std::string token_text(const Tokenizer& tokenizer, TokenId id) {
  std::string bytes = token_bytes(tokenizer, id);
  if (is_utf8(bytes)) return bytes;
  std::string text = "bytes:";
  for (const char c : bytes) text += fmt::format("\\x{:02x}", static_cast<uint8_t>(c));
  return text;
}

int64_t num_characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xc0) != 0x80; });
}

std::string finish_reason(EngineFinish finish, bool has_calls) {
  if (finish == EngineFinish::kStop) return has_calls ? "tool_calls" : "stop";
  return "length";
}

Json whole_answer(const AnswerHead& head, const std::vector<Choice>& choices, const Usage& usage,
                  const Tokenizer& tokenizer) {
  Json answer = object_of(head, "chat.completion", "text_completion");
  answer["choices"] = Json::array();
  for (const Choice& choice : choices) {
    Json entry{{"index", choice.index}};
    if (head.is_chat) {
      Json message{{"role", "assistant"}, {"content", choice.text}, {"refusal", nullptr}};
      if (!choice.calls.empty()) {
        message["tool_calls"] = calls_json(head, choice, 0, false);
        if (choice.text.empty()) message["content"] = nullptr;
      }
      entry["message"] = std::move(message);
      entry["logprobs"] = chat_log_probs(choice, tokenizer);
    } else {
      entry["text"] = choice.text;
      entry["logprobs"] = completion_log_probs(choice, tokenizer);
    }
    entry["finish_reason"] = reason_json(choice);
    answer["choices"].push_back(std::move(entry));
  }
  answer["usage"] = usage_json(usage);
  return answer;
}

Json chunk(const AnswerHead& head, const Choice& choice, bool is_first, int64_t first_call,
           const Tokenizer& tokenizer) {
  Json answer = object_of(head, "chat.completion.chunk", "text_completion");
  Json entry{{"index", choice.index}};
  if (head.is_chat) {
    Json delta = Json::object();
    if (is_first) delta["role"] = "assistant";
    if (!choice.text.empty() || (is_first && choice.calls.empty())) delta["content"] = choice.text;
    if (!choice.calls.empty()) delta["tool_calls"] = calls_json(head, choice, first_call, true);
    entry["delta"] = std::move(delta);
    entry["logprobs"] = choice.log_probs.empty() ? Json() : chat_log_probs(choice, tokenizer);
  } else {
    entry["text"] = choice.text;
    entry["logprobs"] = choice.log_probs.empty() ? Json() : completion_log_probs(choice, tokenizer);
  }
  entry["finish_reason"] = reason_json(choice);
  answer["choices"] = Json::array({std::move(entry)});
  return answer;
}

Json usage_chunk(const AnswerHead& head, const Usage& usage) {
  Json answer = object_of(head, "chat.completion.chunk", "text_completion");
  answer["choices"] = Json::array();
  answer["usage"] = usage_json(usage);
  return answer;
}

}  // namespace potstill::server
