// ChatTemplate: messages -> prompt text, for the families that are known by their template.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace potstill {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

class ChatTemplate {
 public:
  enum class Kind {
    kChatMl,
    kSmolLm,
    kQwen25,
    kQwen3,
    kLlama3,
    kLlama31,  // Llama 3.2 and 3.3 too
    kMistralV1,
    kMistralV3,
    kGemma,
    kGemma3,
    kAlpaca
  };

  // Recognises a Jinja source (tokenizer_config.json, chat_template.jinja, tokenizer.chat_template) by its markers; an
  // empty source gives kAlpaca, the plain instruction prompt for base models. Throws Error(kInput) for one that it does
  // not know.
  static ChatTemplate detect(std::string_view jinja_source, std::string_view where);
  explicit ChatTemplate(Kind kind, std::string jinja_source = {});

  // The rendered conversation; add_generation_prompt ends it where the assistant's answer begins. BOS is in the text
  // where the family's template writes it, so encode() it without special tokens of its own. Throws Error(kInput) for
  // roles that the family refuses.
  std::string render(std::span<const ChatMessage> messages, bool add_generation_prompt) const;
  // What ends an assistant's turn and carries loss in training: "<|im_end|>", "<|eot_id|>", "</s>", …; empty
  // for kAlpaca, whose answers end with the tokenizer's EOS.
  std::string_view end_of_turn() const;
  Kind kind() const { return kind_; }
  std::string_view name() const;
  const std::string& jinja_source() const { return jinja_source_; }  // as found, for export; may be empty
  // Llama 3.1+ writes the date of the day into its system turn; pinned so that a prompt is the same every day.
  void set_date(std::string date) { date_ = std::move(date); }

 private:
  Kind kind_;
  std::string jinja_source_;
  std::string date_ = "26 Jul 2024";
};

}  // namespace potstill
