#include "potstill/lm/gguf_vocabulary.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string>

#include "potstill/base/error.h"

namespace potstill {
namespace {

// llama.cpp's names of pre-tokenizers that cut alike. The first name of a kind is the one that is written.
struct PreTokenizerName {
  std::string_view name;
  PreTokenizer pre;
};
constexpr std::array<PreTokenizerName, 9> kPreTokenizers{{{"gpt-2", PreTokenizer::kGpt2},
                                                          {"llama-bpe", PreTokenizer::kLlama3},
                                                          {"llama3", PreTokenizer::kLlama3},
                                                          {"llama-v3", PreTokenizer::kLlama3},
                                                          {"qwen2", PreTokenizer::kQwen2},
                                                          {"deepseek-r1-qwen", PreTokenizer::kQwen2},
                                                          {"smollm", PreTokenizer::kSmolLm},
                                                          {"starcoder", PreTokenizer::kSmolLm},
                                                          {"refact", PreTokenizer::kSmolLm}}};

PreTokenizer read_pre_tokenizer(const GgufFile& file) {
  const std::string name = file.require_string("tokenizer.ggml.pre");
  const auto found = std::ranges::find(kPreTokenizers, name, &PreTokenizerName::name);
  if (found != kPreTokenizers.end()) return found->pre;
  throw Error(ErrorKind::kInput, file.where(), fmt::format("tokenizer.ggml.pre '{}' is not supported", name),
              "supported: llama-bpe, qwen2, gpt-2, smollm");
}

std::optional<TokenId> read_token_id(const GgufFile& file, std::string_view key, size_t num_tokens) {
  const auto id = file.integer(key);
  if (!id || *id < 0 || *id == 0xffffffff) return std::nullopt;  // 2³² − 1 is llama.cpp's "none"
  if (static_cast<uint64_t>(*id) >= num_tokens) {
    throw Error(ErrorKind::kFormat, file.where(),
                fmt::format("'{}' is {} but there are {} tokens", key, *id, num_tokens));
  }
  return static_cast<TokenId>(*id);
}

std::vector<TokenType> read_types(const GgufFile& file, size_t num_tokens) {
  const auto types = file.integers("tokenizer.ggml.token_type");
  if (!types) return std::vector<TokenType>(num_tokens, TokenType::kNormal);
  if (types->size() != num_tokens) {
    throw Error(ErrorKind::kFormat, file.where(),
                fmt::format("there are {} tokens but {} token types", num_tokens, types->size()));
  }
  std::vector<TokenType> converted;
  converted.reserve(num_tokens);
  for (const int64_t type : *types) {
    if (type < 1 || type > 6) {
      throw Error(ErrorKind::kFormat, file.where(), fmt::format("tokenizer.ggml.token_type holds {}", type));
    }
    converted.push_back(static_cast<TokenType>(type));
  }
  return converted;
}

}  // namespace

Vocabulary vocabulary_from_gguf(const GgufFile& file) {
  const std::string model = file.require_string("tokenizer.ggml.model");
  if (model != "gpt2") {
    throw Error(ErrorKind::kInput, file.where(), fmt::format("tokenizer '{}' is not supported", model),
                "byte-level BPE ('gpt2') alone is: Llama 3, Qwen2, SmolLM2 and their kin");
  }
  const auto* tokens = file.strings("tokenizer.ggml.tokens");
  const auto* merges = file.strings("tokenizer.ggml.merges");
  if (tokens == nullptr || merges == nullptr || tokens->empty()) {
    throw Error(ErrorKind::kFormat, file.where(), "has no tokenizer.ggml.tokens or no tokenizer.ggml.merges");
  }
  if (tokens->size() > INT32_MAX) throw Error(ErrorKind::kFormat, file.where(), "has more than 2³¹ tokens");
  Vocabulary vocabulary;
  vocabulary.pre = read_pre_tokenizer(file);
  vocabulary.tokens = *tokens;
  vocabulary.merges = *merges;
  vocabulary.types = read_types(file, tokens->size());
  for (size_t i = 0; i < tokens->size(); ++i) {
    const TokenType type = vocabulary.types[i];
    if (type != TokenType::kControl && type != TokenType::kUserDefined) continue;
    AddedToken added;
    added.content = (*tokens)[i];
    added.id = static_cast<TokenId>(i);
    added.special = type == TokenType::kControl;
    vocabulary.added.push_back(std::move(added));
  }
  // What the key of the pre-tokenizer implies in llama.cpp, and what the originals' tokenizer.json say.
  vocabulary.ignore_merges = vocabulary.pre == PreTokenizer::kLlama3;
  vocabulary.nfc = vocabulary.pre == PreTokenizer::kQwen2;
  vocabulary.add_bos = file.boolean("tokenizer.ggml.add_bos_token").value_or(vocabulary.pre == PreTokenizer::kLlama3);
  vocabulary.bos = read_token_id(file, "tokenizer.ggml.bos_token_id", tokens->size());
  vocabulary.eos = read_token_id(file, "tokenizer.ggml.eos_token_id", tokens->size());
  vocabulary.pad = read_token_id(file, "tokenizer.ggml.padding_token_id", tokens->size());
  vocabulary.unk = read_token_id(file, "tokenizer.ggml.unknown_token_id", tokens->size());
  return vocabulary;
}

GgufMetadata vocabulary_to_gguf(const Vocabulary& vocabulary, int64_t vocab_size, std::optional<TokenId> end_of_turn) {
  const auto pre = std::ranges::find(kPreTokenizers, vocabulary.pre, &PreTokenizerName::pre);
  std::vector<std::string> tokens = vocabulary.tokens;
  std::vector<int64_t> types;
  for (const TokenType type : vocabulary.types) types.push_back(static_cast<int64_t>(type));
  types.resize(tokens.size(), static_cast<int64_t>(TokenType::kNormal));
  while (static_cast<int64_t>(tokens.size()) < vocab_size) {  // rows of the table that no token has
    tokens.push_back(fmt::format("[PAD{}]", tokens.size()));
    types.push_back(static_cast<int64_t>(TokenType::kUnused));
  }
  GgufMetadata metadata = {{"tokenizer.ggml.model", GgufValue::string("gpt2")},
                           {"tokenizer.ggml.pre", GgufValue::string(std::string(pre->name))},
                           {"tokenizer.ggml.tokens", GgufValue::strings(std::move(tokens))},
                           {"tokenizer.ggml.token_type", GgufValue::i32s(std::move(types))},
                           {"tokenizer.ggml.merges", GgufValue::strings(vocabulary.merges)}};
  const auto add_id = [&](const char* key, std::optional<TokenId> id) {
    if (id) metadata.emplace_back(key, GgufValue::u32(static_cast<uint64_t>(*id)));
  };
  add_id("tokenizer.ggml.bos_token_id", vocabulary.bos);
  add_id("tokenizer.ggml.eos_token_id", vocabulary.eos);
  add_id("tokenizer.ggml.padding_token_id", vocabulary.pad);
  add_id("tokenizer.ggml.unknown_token_id", vocabulary.unk);
  add_id("tokenizer.ggml.eot_token_id", end_of_turn);
  metadata.emplace_back("tokenizer.ggml.add_bos_token", GgufValue::boolean(vocabulary.add_bos));
  metadata.emplace_back("tokenizer.ggml.add_space_prefix", GgufValue::boolean(false));
  return metadata;
}

}  // namespace potstill
