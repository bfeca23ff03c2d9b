// LoRA on a Transformer: factors in PEFT's shapes and initialisation.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "potstill/nn/transformer.h"

namespace potstill {

struct LoraConfig {
  int64_t r = 16;
  double lora_alpha = 32;
  double lora_dropout = 0.0;
  bool use_rslora = false;
  std::vector<std::string> target_modules = {"all-linear"};  // names of linears, or "all-linear"

  double scale() const;
};

struct LoraAdapter {
  LoraConfig config;
  struct Entry {
    std::string path;  // "model.layers.0.self_attn.q_proj"
    std::shared_ptr<LoraPair> pair;
  };
  std::vector<Entry> entries;  // in the order of layers, then kLinearNames
};

// Attaches fresh factors to the model's target linears: A uniform in ±1/sqrt(I) as PEFT draws it (from our own seed), B
// = 0.
LoraAdapter attach_lora(Transformer& model, const LoraConfig& config, uint64_t seed);
void detach_lora(Transformer& model);
std::vector<at::Tensor> lora_parameters(const LoraAdapter& adapter);  // a, b of each entry in turn

// A PEFT folder (adapter_config.json, adapter_model.safetensors).
void save_adapter(const LoraAdapter& adapter, const std::string& base_model, const std::filesystem::path& folder);
// Attaches a PEFT folder's factors. Every tensor must find its linear and every target its pair, with the right shapes.
LoraAdapter load_adapter(Transformer& model, const std::filesystem::path& folder);

}  // namespace potstill
