// Tokenizer: byte-level BPE, id for id equal to Hugging Face's `tokenizers`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace potstill {

using TokenId = int32_t;

// How text is cut before BPE; named as llama.cpp names them in tokenizer.ggml.pre.
enum class PreTokenizer { kGpt2, kLlama3 /* "llama-bpe" */, kQwen2 /* "qwen2" */, kSmolLm /* "smollm" */ };

enum class TokenType : int32_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

struct AddedToken {
  std::string content;
  TokenId id = 0;
  bool special = false, lstrip = false, rstrip = false, single_word = false, normalized = false;
};

// The neutral form behind tokenizer.json and GGUF's tokenizer.ggml.* keys.
struct Vocabulary {
  PreTokenizer pre = PreTokenizer::kGpt2;
  std::vector<std::string> tokens;  // by id; byte-level spelling (GPT-2's alphabet), added tokens as raw text
  std::vector<TokenType> types;     // by id
  std::vector<std::string> merges;  // "left right", rank = index
  std::vector<AddedToken> added;    // by id
  bool ignore_merges = false;       // Llama 3: a pre-token that is a token is emitted whole
  bool nfc = false;                 // Qwen2: text is normalised to NFC first
  bool add_bos = false;             // encode(add_special_tokens) puts bos first
  std::optional<TokenId> bos, eos, pad, unk;
};

class Tokenizer {
 public:
  // Throws Error(kFormat | kInput) with the key at fault: not BPE, unknown pre-tokenizer or normalizer, hostile sizes.
  static Tokenizer from_tokenizer_json(const nlohmann::json& tokenizer_json, const nlohmann::json& tokenizer_config,
                                       std::string_view where);
  explicit Tokenizer(Vocabulary vocabulary, std::string_view where = "tokenizer");
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // Special tokens written in the text ("<|im_end|>") become their ids. Invalid UTF-8 is encoded byte by byte.
  // Thread-safe.
  std::vector<TokenId> encode(std::string_view text, bool add_special_tokens = false) const;
  // Text that a user wrote: "<|im_end|>" in it is cut as ordinary characters.
  std::vector<TokenId> encode_ordinary(std::string_view text) const;

  // Bytes of the ids; may end inside a UTF-8 sequence. Out-of-range ids throw Error(kInput).
  std::string decode_bytes(std::span<const TokenId> ids, bool skip_special_tokens = false) const;
  // As `tokenizers` decodes: invalid sequences become U+FFFD.
  std::string decode(std::span<const TokenId> ids, bool skip_special_tokens = false) const;

  std::optional<TokenId> id_of(std::string_view token) const;  // exact spelling, added tokens too
  int64_t size() const;                                        // number of tokens, added ones counted
  const Vocabulary& vocabulary() const;
  bool is_special(TokenId id) const;

  // A tokenizer.json and a tokenizer_config.json (without chat_template) that the `tokenizers` package reads to the
  // same ids.
  nlohmann::ordered_json to_tokenizer_json() const;
  nlohmann::ordered_json to_tokenizer_config() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Streaming decode: give ids one by one, get the text that is certain; an incomplete UTF-8 sequence is held back.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special_tokens = true);
  std::string push(TokenId id);
  std::string finish();  // what was held back, U+FFFD for a torn sequence

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_tokens_;
  std::string held_;
};

// Whether two tokenizers give every id the same token. Equal up to the shorter one's end counts as same when the rest
// only pads ("[PAD…]", reserved). The message names the first ids that differ, with both spellings.
struct TokenizerComparison {
  bool same = false;
  std::string difference;
};
TokenizerComparison compare_tokenizers(const Tokenizer& a, const Tokenizer& b);

}  // namespace potstill
