// PEFT's LoRA adapter folder: adapter_config.json and adapter_model.safetensors.          huggingface/peft
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "potstill/base/tensor_view.h"
#include "potstill/formats/safetensors.h"

namespace potstill {

struct PeftConfig {
  std::string base_model;  // base_model_name_or_path
  int64_t r = 16;
  double lora_alpha = 32;
  double lora_dropout = 0.0;
  bool use_rslora = false;                                   // scale = alpha / sqrt(r) instead of alpha / r
  std::vector<std::string> target_modules;                   // last parts of module names: "q_proj"; or {"all-linear"}
  std::map<std::string, int64_t, std::less<>> rank_pattern;  // modules whose r differs, by name
  std::map<std::string, double, std::less<>> alpha_pattern;  // modules whose alpha differs, by name
};

nlohmann::ordered_json peft_config_to_json(const PeftConfig& config);
// Throws Error(kInput | kFormat) with the key: not LoRA, DoRA, biases, trained whole modules, missing r, …
PeftConfig peft_config_from_json(const nlohmann::json& config, std::string_view where);

struct PeftPair {
  std::string module;         // "model.layers.0.self_attn.q_proj"
  TensorView lora_a, lora_b;  // [r, I], [O, r]: F32, F16 or BF16
  double scale = 1.0;         // alpha / r, or alpha / sqrt(r), with the patterns applied
};

class PeftAdapter {
 public:
  // Throws Error(kIo | kFormat | kInput): files missing, a factor without its partner, ranks that differ from the
  // config's, tensors that are no LoRA factors.
  explicit PeftAdapter(const std::filesystem::path& folder);

  const PeftConfig& config() const { return config_; }
  const std::vector<PeftPair>& pairs() const { return pairs_; }  // sorted by module
  const PeftPair* find(std::string_view module) const;           // nullptr when absent
  std::string where() const { return folder_.string(); }

 private:
  std::filesystem::path folder_;
  PeftConfig config_;
  std::unique_ptr<SafetensorsFile> file_;
  std::vector<PeftPair> pairs_;
};

// Writes both files; lora_a and lora_b borrow from the caller. peft.PeftModel.from_pretrained loads the folder.
void write_peft_adapter(const std::filesystem::path& folder, const PeftConfig& config,
                        const std::vector<PeftPair>& pairs);

}  // namespace potstill
