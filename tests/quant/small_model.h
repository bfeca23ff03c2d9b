// A two-layer model of seeded weights in a real folder, and its quantization.
#pragma once

#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "tests/formats/format_files.h"

#include "potstill/base/rng.h"
#include "potstill/formats/safetensors.h"
#include "potstill/nn/transformer.h"
#include "potstill/quant/packed_model.h"
#include "potstill/quant/quantize_model.h"
#include "potstill/text/byte_alphabet.h"

namespace potstill {

inline constexpr int64_t kHidden = 64, kIntermediate = 96, kHeads = 4, kKvHeads = 2, kLayers = 2, kVocabulary = 258;

inline std::shared_ptr<const Tokenizer> byte_tokenizer() {
  Vocabulary vocabulary;
  for (int byte = 0; byte < 256; ++byte) {
    vocabulary.tokens.push_back(spell_bytes(std::string(1, static_cast<char>(byte))));
    vocabulary.types.push_back(TokenType::kNormal);
  }
  for (const char* special : {"<|im_start|>", "<|im_end|>"}) {
    const auto id = static_cast<TokenId>(vocabulary.tokens.size());
    vocabulary.tokens.push_back(special);
    vocabulary.types.push_back(TokenType::kControl);
    vocabulary.added.push_back({.content = special, .id = id, .special = true});
  }
  vocabulary.eos = 257;
  return std::make_shared<Tokenizer>(std::move(vocabulary));
}

// Writes seeded weights, some channels larger than others as in a real model, and the files around them.
inline ModelPackage write_model(const std::filesystem::path& folder) {
  ModelConfig config;
  config.model_type = "llama";
  config.vocab_size = kVocabulary;
  config.hidden_size = kHidden;
  config.intermediate_size = kIntermediate;
  config.num_hidden_layers = kLayers;
  config.num_attention_heads = kHeads;
  config.num_key_value_heads = kKvHeads;
  config.head_dim = kHidden / kHeads;
  config.max_position_embeddings = 256;
  config.tie_word_embeddings = true;
  config.eos_token_ids = {257};
  config.torch_dtype = "float32";
  std::vector<TensorSpec> specs = {{"model.embed_tokens.weight", DType::kF32, {kVocabulary, kHidden}},
                                   {"model.norm.weight", DType::kF32, {kHidden}}};
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    const int64_t q = kHidden, kv = kKvHeads * config.head_dim;
    const std::vector<std::vector<int64_t>> shapes = {{q, kHidden},
                                                      {kv, kHidden},
                                                      {kv, kHidden},
                                                      {kHidden, q},
                                                      {kIntermediate, kHidden},
                                                      {kIntermediate, kHidden},
                                                      {kHidden, kIntermediate}};
    for (size_t i = 0; i < shapes.size(); ++i) {
      specs.push_back({linear_path(layer, kLinearNames[i]) + ".weight", DType::kF32, shapes[i]});
    }
    for (const char* norm : {"input_layernorm", "post_attention_layernorm"}) {
      specs.push_back({fmt::format("model.layers.{}.{}.weight", layer, norm), DType::kF32, {kHidden}});
    }
  }
  std::filesystem::create_directories(folder);
  SafetensorsFolderWriter writer(folder, specs);
  for (const auto& spec : specs) {
    Rng rng(1, spec.name);
    std::vector<float> values(spec.bytes() / 4);
    for (size_t i = 0; i < values.size(); ++i) {
      const bool outlier = i % 64 % 13 == 0;
      values[i] = spec.shape.size() == 1 ? (outlier ? 2.5f : 0.8f) : static_cast<float>(rng.normal() * 0.15);
    }
    writer.append(spec.name, std::as_bytes(std::span(values)));
  }
  writer.finish();
  const ModelPackage parts{.path = folder,
                           .config = config,
                           .weights = nullptr,
                           .tokenizer = byte_tokenizer(),
                           .chat_template = ChatTemplate(ChatTemplate::Kind::kChatMl,
                                                         "{% for m in messages %}<|im_start|>{{ m.role }}<|im_end|>"),
                           .generation_config = nlohmann::json::object(),
                           .format = "safetensors"};
  write_model_files(parts, config, folder);
  return open_model(folder);
}

inline std::vector<std::vector<TokenId>> random_corpus(size_t sequences, size_t length) {
  Rng rng(2, "corpus");
  std::vector<std::vector<TokenId>> corpus(sequences);
  for (auto& sequence : corpus) {
    for (size_t i = 0; i < length; ++i) sequence.push_back(static_cast<TokenId>(rng.below(120)));
  }
  return corpus;
}

// Resolved, with the 8-bit linears chosen where the config asks for them.
inline QuantizeSettings settings_of(const ModelPackage& model, const QuantizeConfig& config) {
  QuantizeSettings settings = resolve_settings(config, model.config);
  plan_eight_bits(model, random_corpus(24, 48), {}, settings);
  return settings;
}

inline std::string quantize_into(const ModelPackage& model, const QuantizeConfig& config,
                                 const std::filesystem::path& folder, int64_t stop_at_layer = -1) {
  const QuantizeSettings settings = settings_of(model, config);
  LayerKeeper keeper = keep_layers_in(folder / "work", settings);
  const auto save = keeper.save;
  keeper.save = [&, save](const QuantizedLayer& layer) {
    if (layer.layer == stop_at_layer) throw std::runtime_error("killed");
    save(layer);
  };
  quantize_model(model, random_corpus(24, 48), settings, {}, keeper);
  write_packed_model(model, settings, keeper, folder);
  return read_file(folder / "model.safetensors");
}

}  // namespace potstill
