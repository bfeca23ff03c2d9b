#include "potstill/text/chat_template.h"

#include <fmt/format.h>

#include <array>

#include "potstill/base/error.h"
#include "potstill/text/unicode.h"

namespace potstill {
namespace {

using Kind = ChatTemplate::Kind;

struct Family {
  Kind kind;
  std::string_view name, end_of_turn;
};
constexpr std::array kFamilies{
    Family{Kind::kChatMl, "ChatML", "<|im_end|>"},
    Family{Kind::kSmolLm, "SmolLM2", "<|im_end|>"},
    Family{Kind::kQwen25, "Qwen2.5", "<|im_end|>"},
    Family{Kind::kQwen3, "Qwen3", "<|im_end|>"},
    Family{Kind::kLlama3, "Llama 3", "<|eot_id|>"},
    Family{Kind::kLlama31, "Llama 3.1", "<|eot_id|>"},
    Family{Kind::kMistralV1, "Mistral v1", "</s>"},
    Family{Kind::kMistralV3, "Mistral v3", "</s>"},
    Family{Kind::kGemma, "Gemma", "<end_of_turn>"},
    Family{Kind::kGemma3, "Gemma 3", "<end_of_turn>"},
    Family{Kind::kAlpaca, "Alpaca", ""},
};

const Family& family(Kind kind) { return kFamilies[static_cast<size_t>(kind)]; }

bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

// Python's str.strip(), which Jinja's trim is: White_Space and the four separators U+001C..U+001F.
std::string_view trimmed(std::string_view text) {
  const auto is_separator = [](char c) { return c >= '\x1C' && c <= '\x1F'; };
  for (size_t before = text.size() + 1; before != text.size();) {
    before = text.size();
    text.remove_prefix(leading_space(text));
    text.remove_suffix(trailing_space(text));
    if (!text.empty() && is_separator(text.front())) text.remove_prefix(1);
    if (!text.empty() && is_separator(text.back())) text.remove_suffix(1);
  }
  return text;
}

std::string_view without_newlines(std::string_view text, bool front, bool back) {
  while (front && !text.empty() && text.front() == '\n') text.remove_prefix(1);
  while (back && !text.empty() && text.back() == '\n') text.remove_suffix(1);
  return text;
}

// What a ChatML template puts into a system turn of its own, if it writes one: the literal between "<|im_start|>system"
// and "<|im_end|>". Where that is an expression ("' + message['content'] + '") there is no default.
std::string default_system(Kind kind, std::string_view jinja) {
  constexpr std::string_view kStart = "<|im_start|>system";
  for (size_t at = jinja.find(kStart); at != std::string_view::npos; at = jinja.find(kStart, at + 1)) {
    std::string_view rest = jinja.substr(at + kStart.size());
    if (rest.substr(0, 2) == "\\n") {
      rest.remove_prefix(2);
    } else if (rest.substr(0, 1) == "\n") {
      rest.remove_prefix(1);
    } else {
      continue;
    }
    const std::string_view literal = rest.substr(0, rest.find("<|im_end|>"));
    if (literal.size() < rest.size() && !literal.empty() && !contains(literal, "'") && !contains(literal, "{{")) {
      return std::string(literal);
    }
  }
  if (kind == Kind::kSmolLm) return "You are a helpful AI assistant named SmolLM, trained by Hugging Face";
  if (kind == Kind::kQwen25) return "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.";
  return {};
}

[[noreturn]] void refuse(Kind kind, const std::string& what, std::string_view hint) {
  throw Error(ErrorKind::kInput, fmt::format("{} chat template", family(kind).name), what, hint);
}

// For the families that insist on user, assistant, user, … after an optional system message.
void require_alternation(Kind kind, std::span<const ChatMessage> turns) {
  for (size_t i = 0; i < turns.size(); ++i) {
    const std::string_view wanted = i % 2 == 0 ? "user" : "assistant";
    if (turns[i].role != wanted) {
      refuse(kind, fmt::format("turn {} is of the role '{}' but must be '{}'", i + 1, turns[i].role, wanted),
             "user and assistant must alternate, the user first");
    }
  }
}

struct Conversation {
  const ChatMessage* system = nullptr;  // the first message, if it is one
  std::span<const ChatMessage> turns;   // the rest
};

Conversation split_system(std::span<const ChatMessage> messages) {
  if (messages.empty() || messages[0].role != "system") return {nullptr, messages};
  return {&messages[0], messages.subspan(1)};
}

std::string render_chatml(Kind kind, std::string_view jinja, std::span<const ChatMessage> messages, bool answer) {
  std::string out;
  const auto turn = [&](std::string_view role, std::string_view content) {
    out += fmt::format("<|im_start|>{}\n{}<|im_end|>\n", role, content);
  };
  if (const std::string system = default_system(kind, jinja);
      !system.empty() && !messages.empty() && messages[0].role != "system") {
    turn("system", system);
  }
  for (const ChatMessage& message : messages) turn(message.role, message.content);
  if (answer) out += "<|im_start|>assistant\n";
  return out;
}

// Qwen3 keeps its thoughts only after the last question, and writes an empty thought into a last answer without one.
std::string render_qwen3(std::span<const ChatMessage> messages, bool answer) {
  size_t last_question = messages.size();
  for (size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role == "user") last_question = i;
  }
  std::string out;
  for (size_t i = 0; i < messages.size(); ++i) {
    std::string_view content = messages[i].content, thought;
    out += fmt::format("<|im_start|>{}\n", messages[i].role);
    if (messages[i].role == "assistant") {
      constexpr std::string_view kOpen = "<think>", kClose = "</think>";
      if (const size_t close = content.find(kClose); close != std::string_view::npos) {
        thought = without_newlines(content.substr(0, close), /*front=*/false, /*back=*/true);
        if (const size_t open = thought.rfind(kOpen); open != std::string_view::npos)
          thought.remove_prefix(open + kOpen.size());
        content =
            without_newlines(content.substr(content.rfind(kClose) + kClose.size()), /*front=*/true, /*back=*/false);
        thought = without_newlines(thought, /*front=*/true, /*back=*/false);
      }
      const bool is_last = i + 1 == messages.size();
      if (last_question < i && (is_last || !thought.empty())) {
        out += fmt::format("<think>\n{}\n</think>\n\n", without_newlines(thought, true, true));
        content = without_newlines(content, /*front=*/true, /*back=*/false);
      }
    }
    out += fmt::format("{}<|im_end|>\n", content);
  }
  if (answer) out += "<|im_start|>assistant\n";
  return out;
}

std::string render_llama3(std::span<const ChatMessage> messages, bool answer) {
  std::string out = messages.empty() ? "" : "<|begin_of_text|>";
  for (const ChatMessage& message : messages) {
    out +=
        fmt::format("<|start_header_id|>{}<|end_header_id|>\n\n{}<|eot_id|>", message.role, trimmed(message.content));
  }
  if (answer) out += "<|start_header_id|>assistant<|end_header_id|>\n\n";
  return out;
}

// Llama 3.1 and 3.2 always write a system turn with dates, before what the system message says.
std::string render_llama31(std::string_view date, std::span<const ChatMessage> messages, bool answer) {
  const Conversation conversation = split_system(messages);
  const std::string_view system = conversation.system ? trimmed(conversation.system->content) : std::string_view();
  std::string out = fmt::format(
      "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
      "Today Date: {}\n\n{}<|eot_id|>",
      date, system);
  for (const ChatMessage& message : conversation.turns) {
    out +=
        fmt::format("<|start_header_id|>{}<|end_header_id|>\n\n{}<|eot_id|>", message.role, trimmed(message.content));
  }
  if (answer) out += "<|start_header_id|>assistant<|end_header_id|>\n\n";
  return out;
}

// v1 joins the system message to the first question and sets blanks outside its brackets; v3 joins it to the last
// message, if that is a question, and has one blank inside.
std::string render_mistral(Kind kind, std::span<const ChatMessage> messages) {
  const Conversation conversation = split_system(messages);
  require_alternation(kind, conversation.turns);
  const bool v1 = kind == Kind::kMistralV1;
  std::string out = "<s>";
  for (size_t i = 0; i < conversation.turns.size(); ++i) {
    const ChatMessage& message = conversation.turns[i];
    if (message.role == "assistant") {
      out += fmt::format(" {}</s>", v1 ? std::string_view(message.content) : trimmed(message.content));
      continue;
    }
    const bool has_system = conversation.system && (v1 ? i == 0 : i + 1 == conversation.turns.size());
    out += fmt::format("{}[INST] {}{}{}{}[/INST]", v1 ? " " : "", has_system ? conversation.system->content : "",
                       has_system ? "\n\n" : "", message.content, v1 ? " " : "");
  }
  return out;
}

std::string render_gemma(Kind kind, std::span<const ChatMessage> messages, bool answer) {
  const Conversation conversation = split_system(messages);
  if (conversation.system && kind == Kind::kGemma) {
    refuse(kind, "the conversation has a system message, which this family refuses",
           "put it into the first user message");
  }
  require_alternation(kind, conversation.turns);
  std::string out = "<bos>";
  for (size_t i = 0; i < conversation.turns.size(); ++i) {
    const ChatMessage& message = conversation.turns[i];
    out += fmt::format("<start_of_turn>{}\n", message.role == "assistant" ? "model" : message.role);
    if (i == 0 && conversation.system) out += conversation.system->content + "\n\n";
    out += fmt::format("{}<end_of_turn>\n", trimmed(message.content));
  }
  if (answer) out += "<start_of_turn>model\n";
  return out;
}

// The prompt of tatsu-lab/stanford_alpaca; a system message takes the place of its first sentence.
std::string render_alpaca(std::span<const ChatMessage> messages, bool answer) {
  const Conversation conversation = split_system(messages);
  require_alternation(Kind::kAlpaca, conversation.turns);
  std::string out = conversation.system ? conversation.system->content
                                        : "Below is an instruction that describes a task. Write a response that "
                                          "appropriately completes the request.";
  for (const ChatMessage& message : conversation.turns) {
    out += fmt::format("\n\n### {}:\n{}", message.role == "user" ? "Instruction" : "Response", message.content);
  }
  if (answer) out += "\n\n### Response:\n";
  return out;
}

Kind detect_kind(std::string_view jinja, std::string_view where) {
  const auto has = [&](std::string_view marker) { return contains(jinja, marker); };
  if (has("<|im_start|>")) {
    if (has("reasoning_content") && has("</think>")) return Kind::kQwen3;
    if (has("named SmolLM, trained by Hugging Face")) return Kind::kSmolLm;
    if (has("You are Qwen, created by Alibaba Cloud")) return Kind::kQwen25;
    return Kind::kChatMl;
  }
  if (has("<|start_header_id|>") && has("<|eot_id|>"))
    return has("Cutting Knowledge Date") ? Kind::kLlama31 : Kind::kLlama3;
  if (has("<start_of_turn>")) return has("first_user_prefix") ? Kind::kGemma3 : Kind::kGemma;
  if (has("' [INST] '")) return Kind::kMistralV1;
  if (has("\"[INST] \"") && has("\"[/INST]\"")) return Kind::kMistralV3;
  throw Error(
      ErrorKind::kInput, where, "the chat template is of no known family",
      "known: ChatML, SmolLM2, Qwen2.5, Qwen3, Llama 3, Llama 3.1/3.2, Mistral v1 and v3, Gemma, Alpaca (none)");
}

}  // namespace

ChatTemplate ChatTemplate::detect(std::string_view jinja_source, std::string_view where) {
  if (trimmed(jinja_source).empty()) return ChatTemplate(Kind::kAlpaca);
  return ChatTemplate(detect_kind(jinja_source, where), std::string(jinja_source));
}

ChatTemplate::ChatTemplate(Kind kind, std::string jinja_source) : kind_(kind), jinja_source_(std::move(jinja_source)) {}

std::string ChatTemplate::render(std::span<const ChatMessage> messages, bool add_generation_prompt) const {
  for (const ChatMessage& message : messages) {
    if (message.role != "system" && message.role != "user" && message.role != "assistant") {
      refuse(kind_, fmt::format("unknown role '{}'", message.role), "roles are system, user and assistant");
    }
  }
  switch (kind_) {
    case Kind::kChatMl:
    case Kind::kSmolLm:
    case Kind::kQwen25:
      return render_chatml(kind_, jinja_source_, messages, add_generation_prompt);
    case Kind::kQwen3:
      return render_qwen3(messages, add_generation_prompt);
    case Kind::kLlama3:
      return render_llama3(messages, add_generation_prompt);
    case Kind::kLlama31:
      return render_llama31(date_, messages, add_generation_prompt);
    case Kind::kMistralV1:
    case Kind::kMistralV3:
      return render_mistral(kind_, messages);
    case Kind::kGemma:
    case Kind::kGemma3:
      return render_gemma(kind_, messages, add_generation_prompt);
    case Kind::kAlpaca:
      break;
  }
  return render_alpaca(messages, add_generation_prompt);
}

std::string_view ChatTemplate::end_of_turn() const { return family(kind_).end_of_turn; }

std::string_view ChatTemplate::name() const { return family(kind_).name; }

}  // namespace potstill
