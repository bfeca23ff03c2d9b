// Names and row order: Hugging Face <-> GGUF.          ggml-org/llama.cpp: gguf-py/gguf/tensor_mapping.py
#include <fmt/format.h>

#include <array>
#include <charconv>
#include <string>

#include "potstill/formats/gguf_checkpoint.h"

namespace potstill {
namespace {

struct NamePair {
  std::string_view hf, gguf;
};

constexpr std::array<NamePair, 3> kGlobalNames{{{"model.embed_tokens.weight", "token_embd.weight"},
                                                {"model.norm.weight", "output_norm.weight"},
                                                {"lm_head.weight", "output.weight"}}};
// Modules of a layer; ".weight" or ".bias" follows.
constexpr std::array<NamePair, 11> kLayerNames{{{"input_layernorm", "attn_norm"},
                                                {"self_attn.q_proj", "attn_q"},
                                                {"self_attn.k_proj", "attn_k"},
                                                {"self_attn.v_proj", "attn_v"},
                                                {"self_attn.o_proj", "attn_output"},
                                                {"self_attn.q_norm", "attn_q_norm"},
                                                {"self_attn.k_norm", "attn_k_norm"},
                                                {"post_attention_layernorm", "ffn_norm"},
                                                {"mlp.gate_proj", "ffn_gate"},
                                                {"mlp.up_proj", "ffn_up"},
                                                {"mlp.down_proj", "ffn_down"}}};

// "model.layers.12.mlp.up_proj.weight" = prefix "model.layers." + "12" + "." + "mlp.up_proj" + ".weight"
struct LayerName {
  std::string_view layer, module, suffix;
};

std::optional<LayerName> split_layer_name(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return std::nullopt;
  name.remove_prefix(prefix.size());
  const size_t digits = name.find_first_not_of("0123456789");
  if (digits == 0 || digits == std::string_view::npos || name[digits] != '.') return std::nullopt;
  if (digits > 1 && name[0] == '0') return std::nullopt;  // "03" is no layer
  const size_t dot = name.rfind('.');
  if (dot <= digits) return std::nullopt;
  const std::string_view suffix = name.substr(dot);
  if (suffix != ".weight" && suffix != ".bias") return std::nullopt;
  return LayerName{
      .layer = name.substr(0, digits), .module = name.substr(digits + 1, dot - digits - 1), .suffix = suffix};
}

std::optional<std::string> translate(std::string_view name, std::string_view NamePair::*from,
                                     std::string_view NamePair::*to, std::string_view from_prefix,
                                     std::string_view to_prefix) {
  for (const NamePair& pair : kGlobalNames) {
    if (pair.*from == name) return std::string(pair.*to);
  }
  const auto parts = split_layer_name(name, from_prefix);
  if (!parts) return std::nullopt;
  for (const NamePair& pair : kLayerNames) {
    if (pair.*from == parts->module) {
      return fmt::format("{}{}.{}{}", to_prefix, parts->layer, pair.*to, parts->suffix);
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::string> gguf_tensor_name(std::string_view hf_name) {
  return translate(hf_name, &NamePair::hf, &NamePair::gguf, "model.layers.", "blk.");
}

std::optional<std::string> hf_tensor_name(std::string_view gguf_name) {
  return translate(gguf_name, &NamePair::gguf, &NamePair::hf, "blk.", "model.layers.");
}

int64_t permuted_heads(std::string_view hf_name, std::string_view architecture, const ModelConfig& config) {
  if (architecture != "llama") return 0;
  const auto parts = split_layer_name(hf_name, "model.layers.");
  if (!parts) return 0;
  if (parts->module == "self_attn.q_proj") return config.num_attention_heads;
  if (parts->module == "self_attn.k_proj") return config.num_key_value_heads;
  return 0;
}

}  // namespace potstill
