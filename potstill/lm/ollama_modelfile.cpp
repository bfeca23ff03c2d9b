#include "potstill/lm/ollama_modelfile.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace potstill {
namespace {

// Ollama's templates are Go's. Empty: none is known, and Ollama takes the Jinja source that is in the file.
std::string_view go_template(ChatTemplate::Kind kind) {
  using enum ChatTemplate::Kind;
  switch (kind) {
    case kChatMl:
    case kSmolLm:
    case kQwen25:
    case kQwen3:
      return "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end "
             "}}<|im_start|>assistant\n";
    case kLlama3:
    case kLlama31:
      return "{{- range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n{{ .Content }}<|eot_id|>{{ end "
             "}}"
             "<|start_header_id|>assistant<|end_header_id|>\n\n";
    case kAlpaca:
      return "{{ if .System }}{{ .System }}{{ else }}Below is an instruction that describes a task. Write a response "
             "that "
             "appropriately completes the request.{{ end }}\n\n### Instruction:\n{{ .Prompt }}\n\n### Response:\n";
    default:
      return {};
  }
}

// The system turn that the family's template writes when the user gives none.
std::string_view default_system(ChatTemplate::Kind kind) {
  if (kind == ChatTemplate::Kind::kSmolLm)
    return "You are a helpful AI assistant named SmolLM, trained by Hugging Face";
  if (kind == ChatTemplate::Kind::kQwen25)
    return "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.";
  return {};
}

}  // namespace

std::string ollama_modelfile(const ModelPackage& model, std::string_view gguf_name) {
  std::string text = fmt::format("FROM ./{}\n", gguf_name);
  const auto kind = model.chat_template.kind();
  if (const auto go = go_template(kind); !go.empty()) text += fmt::format("TEMPLATE \"\"\"{}\"\"\"\n", go);
  if (const auto system = default_system(kind); !system.empty()) text += fmt::format("SYSTEM \"\"\"{}\"\"\"\n", system);
  std::vector<std::string> stops;
  for (const TokenId id : stop_token_ids(model)) {
    const auto& tokens = model.tokenizer->vocabulary().tokens;
    if (id >= 0 && static_cast<size_t>(id) < tokens.size()) stops.push_back(tokens[static_cast<size_t>(id)]);
  }
  std::ranges::sort(stops);
  stops.erase(std::unique(stops.begin(), stops.end()), stops.end());
  for (const auto& stop : stops) text += fmt::format("PARAMETER stop \"{}\"\n", stop);
  return text;
}

}  // namespace potstill
