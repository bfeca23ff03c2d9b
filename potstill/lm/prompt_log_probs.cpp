#include "potstill/lm/prompt_log_probs.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

namespace potstill {
namespace {

using Json = nlohmann::json;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

std::optional<TokenId> whole_id(std::string_view text) {
  TokenId id = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  return error == std::errc() && stop == text.data() + text.size() && id >= 0 ? std::optional(id) : std::nullopt;
}

std::optional<PromptLogProbs> read_vllm(const Json& choice, const std::vector<TokenId>& prompt) {
  const auto found = choice.find("prompt_logprobs");
  if (found == choice.end() || !found->is_array() || found->size() != prompt.size()) return std::nullopt;
  PromptLogProbs result;
  for (size_t i = 0; i < prompt.size(); ++i) {
    auto& position = result.tokens.emplace_back();
    position.token = {.id = prompt[i], .text = {}, .log_prob = kNaN};
    const Json& entries = (*found)[i];
    if (!entries.is_object()) continue;  // null: the first
    for (const auto& [key, value] : entries.items()) {
      const auto id = whole_id(key);
      if (!id || !value.is_object()) return std::nullopt;
      PromptLogProbs::Entry entry{
          .id = id, .text = value.value("decoded_token", ""), .log_prob = value.at("logprob").get<double>()};
      if (*id == prompt[i]) position.token = entry;
      position.top.push_back(std::move(entry));
    }
  }
  return result;
}

std::optional<PromptLogProbs> read_echo(const Json& choice, const std::vector<TokenId>& prompt) {
  const Json log_probs = choice.value("logprobs", Json());
  if (!log_probs.is_object()) return std::nullopt;
  for (const char* key : {"tokens", "token_logprobs", "top_logprobs"}) {
    if (!log_probs.contains(key) || !log_probs[key].is_array() || log_probs[key].size() < prompt.size())
      return std::nullopt;
  }
  PromptLogProbs result;
  for (size_t i = 0; i < prompt.size(); ++i) {  // what was generated behind the prompt is left
    const Json &value = log_probs["token_logprobs"][i], &top = log_probs["top_logprobs"][i];
    auto& position = result.tokens.emplace_back();
    position.token = {.id = std::nullopt,
                      .text = log_probs["tokens"][i].get<std::string>(),
                      .log_prob = value.is_number() ? value.get<double>() : kNaN};
    if (!top.is_object()) continue;
    for (const auto& [text, each] : top.items()) {
      if (each.is_number()) position.top.push_back({.id = std::nullopt, .text = text, .log_prob = each.get<double>()});
    }
  }
  return result;
}

std::string bytes_behind(const std::string& text) {
  if (text.rfind("bytes:", 0) != 0) return text;
  std::string bytes;
  for (size_t i = 6; i + 4 <= text.size(); i += 4) {
    unsigned value = 0;
    const char* begin = text.data() + i + 2;
    const auto [stop, error] = std::from_chars(begin, begin + 2, value, 16);
    if (text.compare(i, 2, "\\x") != 0 || error != std::errc() || stop != begin + 2) return text;
    bytes += static_cast<char>(value);
  }
  return bytes;
}

}  // namespace

Json log_prob_fields(LogProbDialect dialect, int64_t top_k) {
  // One token is written, since some servers refuse to write none; it is not looked at.
  Json fields = {{"max_tokens", 1}, {"temperature", 0}};
  if (dialect == LogProbDialect::kVllm) {
    fields["prompt_logprobs"] = top_k;
  } else {
    fields["echo"] = true;
    fields["logprobs"] = top_k;
  }
  return fields;
}

std::optional<PromptLogProbs> read_prompt_log_probs(LogProbDialect dialect, const Json& choice,
                                                    const std::vector<TokenId>& prompt) {
  return dialect == LogProbDialect::kVllm ? read_vllm(choice, prompt) : read_echo(choice, prompt);
}

TokenTexts::TokenTexts(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {
  for (int64_t id = 0; id < tokenizer.size(); ++id) {
    const auto token = static_cast<TokenId>(id);
    ids_.emplace_back(tokenizer.decode_bytes(std::span(&token, 1)), token);
  }
  std::ranges::sort(ids_);
}

std::optional<TokenId> TokenTexts::id_of(const std::string& text) const {
  if (text.rfind("token_id:", 0) == 0) {
    const auto id = whole_id(std::string_view(text).substr(9));
    return id && *id < tokenizer_.size() ? id : std::nullopt;
  }
  const std::pair<std::string, TokenId> wanted(bytes_behind(text), 0);
  const auto found = std::ranges::lower_bound(ids_, wanted);
  return found != ids_.end() && found->first == wanted.first ? std::optional(found->second) : std::nullopt;
}

bool TokenTexts::spells(const std::string& text, TokenId id) const {
  if (text.empty()) return true;
  if (text.rfind("token_id:", 0) == 0) return whole_id(std::string_view(text).substr(9)) == id;
  const std::string ours = tokenizer_.decode_bytes(std::span(&id, 1));
  const std::string theirs = bytes_behind(text);
  if (theirs == ours) return true;
  // A token that ends inside a character is shown as U+FFFD by some, and a special one as nothing.
  return theirs.find("\xef\xbf\xbd") != std::string::npos || tokenizer_.is_special(id);
}

}  // namespace potstill
