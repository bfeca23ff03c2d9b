#include "potstill/distill/records.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "potstill/base/error.h"
#include "potstill/base/log.h"
#include "potstill/base/rng.h"
#include "potstill/base/sha256.h"
#include "potstill/lm/request_tokens.h"

namespace potstill {
namespace {

std::string at_line(const std::filesystem::path& path, int64_t line) {
  return fmt::format("{}:{}", path.string(), line);
}

std::string optional_string(const JsonlRecord& record, const std::filesystem::path& path, std::string_view field) {
  const auto found = record.value.find(field);
  if (found == record.value.end() || found->is_null()) return {};
  return required_string(record, path, field);
}

std::vector<ChatMessage> messages_field(const JsonlRecord& record, const std::filesystem::path& path) {
  const auto& list = record.value["messages"];
  std::vector<ChatMessage> messages;
  const auto is_message = [](const nlohmann::json& m) {
    return m.is_object() && m.contains("role") && m["role"].is_string() && m.contains("content") &&
           m["content"].is_string();
  };
  if (!list.is_array() || !std::ranges::all_of(list, is_message)) {
    throw Error(
        ErrorKind::kInput, at_line(path, record.line),
        "'messages' must be a list of objects with the strings 'role' and 'content'",
        R"(for example {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]})");
  }
  for (const auto& message : list) messages.push_back({message["role"], message["content"]});
  return messages;
}

// Text that must begin with what was rendered before it: a template that rewrites earlier turns cannot be cut into
// prompt and answer.
std::string_view rest_after(std::string_view text, std::string_view begin, std::string_view where) {
  if (!text.starts_with(begin)) {
    throw Error(ErrorKind::kInput, where, "the chat template renders this conversation's turns not one after another",
                "conversations that end with their only assistant turn work with every template");
  }
  return text.substr(begin.size());
}

void append(DistillRecord& record, const std::vector<TokenId>& tokens, bool is_answer) {
  record.tokens.insert(record.tokens.end(), tokens.begin(), tokens.end());
  record.is_answer.insert(record.is_answer.end(), tokens.size(), is_answer ? 1 : 0);
}

// What ends an assistant's turn: the template's token, else the tokenizer's end of text.
struct TurnEnd {
  std::string text;
  TokenId id;
};
TurnEnd turn_end(const Tokenizer& tokenizer, const ChatTemplate& chat_template, std::string_view where) {
  const std::string text(chat_template.end_of_turn());
  if (!text.empty()) {
    if (const auto id = tokenizer.id_of(text)) return {text, *id};
  }
  const auto& vocabulary = tokenizer.vocabulary();
  if (vocabulary.eos) return {vocabulary.tokens.at(static_cast<size_t>(*vocabulary.eos)), *vocabulary.eos};
  throw Error(ErrorKind::kInput, where,
              fmt::format("the tokenizer has neither the template's end of turn '{}' nor an end-of-text token", text),
              "the model's tokenizer and chat template do not belong together");
}

}  // namespace

namespace {

// The first 8 bytes of SHA-256 over roles and contents.
int64_t hash_of(std::span<const ChatMessage> messages) {
  std::string text;
  for (const auto& message : messages)
    text += fmt::format("{}:{}:{}", message.role, message.content.size(), message.content);
  return static_cast<int64_t>(std::stoull(sha256_hex(text).substr(0, 16), nullptr, 16));
}

}  // namespace

std::vector<int64_t> DistillRecord::answer_positions() const {
  std::vector<int64_t> positions;
  for (size_t i = 0; i + 1 < tokens.size(); ++i) {
    if (is_answer[i + 1]) positions.push_back(static_cast<int64_t>(i));
  }
  return positions;
}

std::vector<ChatMessage> record_messages(const JsonlRecord& record, const std::filesystem::path& path) {
  if (record.value.contains("messages")) return messages_field(record, path);
  std::vector<ChatMessage> messages;
  const std::string system = optional_string(record, path, "system");
  if (!system.empty()) messages.push_back({"system", system});
  std::string question = required_string(record, path, "instruction");
  const std::string input = optional_string(record, path, "input");
  if (!input.empty()) question += "\n\n" + input;
  messages.push_back({"user", question});
  messages.push_back({"assistant", required_string(record, path, "output")});
  return messages;
}

DistillRecord make_distill_record(std::span<const ChatMessage> messages, const Tokenizer& tokenizer,
                                  const ChatTemplate& chat_template, std::string_view where) {
  const TurnEnd end = turn_end(tokenizer, chat_template, where);
  DistillRecord record;
  record.text_hash = hash_of(messages);
  std::string done;  // text that is cut into tokens already
  for (size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role != "assistant") continue;
    const std::string prompt = chat_template.render(messages.first(i), /*add_generation_prompt=*/true);
    const std::string whole = chat_template.render(messages.first(i + 1), /*add_generation_prompt=*/false);
    append(record, tokenizer.encode(rest_after(prompt, done, where)), false);  // a template writes its own BOS
    std::string_view answer = rest_after(whole, prompt, where);
    // Templates may write more after the turn's end (ChatML: a newline); base models' prompts may write no end at all.
    const size_t answer_end = answer.rfind(end.text);
    if (answer_end != std::string_view::npos) answer = answer.substr(0, answer_end);
    if (answer.find_first_not_of(" \t\r\n") == std::string_view::npos) {
      throw Error(ErrorKind::kInput, where, "the answer is empty", "leave the pair out or give it an 'output'");
    }
    append(record, tokenizer.encode_ordinary(answer), true);
    append(record, {end.id}, true);
    done = prompt + std::string(answer);
    if (answer_end != std::string_view::npos) done += end.text;
  }
  if (record.tokens.empty()) {
    throw Error(ErrorKind::kInput, where, "the conversation has no assistant turn to learn from",
                "give an 'output', or a message with the role 'assistant'");
  }
  return record;
}

DistillRecord make_plain_record(std::span<const ChatMessage> messages, const Tokenizer& tokenizer,
                                std::string_view where) {
  if (messages.size() != 2 || messages[0].role != "user" || messages[1].role != "assistant") {
    throw Error(ErrorKind::kInput, where, "plain rendering takes one question and one answer",
                "leave system turns and longer conversations out, or set rendering: chat");
  }
  if (messages[1].content.find_first_not_of(" \t\r\n") == std::string::npos) {
    throw Error(ErrorKind::kInput, where, "the answer is empty", "leave the pair out or give it an 'output'");
  }
  const ScoreTokens cut =
      score_tokens(tokenizer, {.context = messages[0].content, .continuation = " " + messages[1].content});
  DistillRecord record;
  append(record, cut.context, false);
  append(record, cut.continuation, true);
  if (const auto end = tokenizer.vocabulary().eos) append(record, {*end}, true);
  return record;
}

std::vector<std::vector<TokenId>> DistillData::sequences() const {
  std::vector<std::vector<TokenId>> result;
  for (const auto& record : records) result.push_back(record.tokens);
  return result;
}

std::vector<int64_t> choose_held_out(int64_t count, double share, uint64_t seed) {
  if (share <= 0 || count < 2) return {};
  const auto wanted = std::clamp<int64_t>(std::llround(share * static_cast<double>(count)), 1, count - 1);
  std::vector<int64_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  Rng rng(seed, "distill/held_out");
  rng.shuffle(order);
  order.resize(static_cast<size_t>(wanted));
  std::ranges::sort(order);
  return order;
}

std::vector<int64_t> held_out_lines(const DistillData& data) {
  std::vector<int64_t> lines;
  for (const int64_t i : data.held_out) lines.push_back(data.records[static_cast<size_t>(i)].line);
  std::ranges::sort(lines);
  return lines;
}

DistillData load_distill_data(const std::filesystem::path& path, const Tokenizer& tokenizer,
                              const ChatTemplate& chat_template, const DistillDataConfig& config, uint64_t seed) {
  DistillData data;
  std::vector<int64_t> named;  // pairs that the file itself holds out
  const auto lines = read_jsonl(path);
  for (const JsonlRecord& line : lines) {
    const auto messages = record_messages(line, path);
    const std::string where = at_line(path, line.line);
    auto record = config.rendering == "plain" ? make_plain_record(messages, tokenizer, where)
                                              : make_distill_record(messages, tokenizer, chat_template, where);
    record.line = line.line;
    if (static_cast<int64_t>(record.tokens.size()) > config.max_sequence_length) {
      ++data.too_long;
    } else {
      if (optional_string(line, path, "split") == "heldout") named.push_back(static_cast<int64_t>(data.records.size()));
      data.records.push_back(std::move(record));
    }
  }
  if (data.records.empty()) {
    throw Error(ErrorKind::kInput, path.string(),
                lines.empty()
                    ? "holds no pairs"
                    : fmt::format("all {} pairs are longer than {} tokens", lines.size(), config.max_sequence_length),
                lines.empty() ? "each line is an object with 'instruction' and 'output', or 'messages'"
                              : "raise --max-sequence-length");
  }
  if (data.too_long > 0) {
    log_warning("{} of {} pairs are longer than {} tokens and are left out", data.too_long, lines.size(),
                config.max_sequence_length);
  }
  const auto count = static_cast<int64_t>(data.records.size());
  if (config.held_out == 0) named.clear();
  data.held_out = named.empty() ? choose_held_out(count, config.held_out, seed) : named;
  for (int64_t i = 0; i < count; ++i) {
    if (!std::ranges::binary_search(data.held_out, i)) data.train.push_back(i);
  }
  return data;
}

}  // namespace potstill
