// ModelPackage: everything that "a model on the disk" is, opened from any supported layout.
#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "potstill/formats/model_config.h"
#include "potstill/formats/weight_source.h"
#include "potstill/text/chat_template.h"
#include "potstill/text/tokenizer.h"

namespace potstill {

struct ModelPackage {
  std::filesystem::path path;
  ModelConfig config;
  std::shared_ptr<const WeightSource> weights;
  std::shared_ptr<const Tokenizer> tokenizer;
  ChatTemplate chat_template;
  nlohmann::json generation_config;  // {} when absent
  std::string format;                // "safetensors", "gguf", "compressed-tensors", "gptq"
};

// A Hugging Face folder (safetensors, or W4A16 in compressed-tensors or GPTQ layout) or a .gguf file. Tensors named by
// the config are checked for presence and shape before anything is read. Throws Error(kIo | kFormat | kInput).
ModelPackage open_model(const std::filesystem::path& path);

// Ids that end an answer: eos ids of config and generation config, and the template's end-of-turn token.
std::vector<TokenId> stop_token_ids(const ModelPackage& model);

// Writes config.json, generation_config.json, tokenizer.json, tokenizer_config.json (with the chat template) and
// special_tokens_map.json into a folder: all of a Hugging Face model but its weights.
void write_model_files(const ModelPackage& model, const ModelConfig& config, const std::filesystem::path& folder);

}  // namespace potstill
