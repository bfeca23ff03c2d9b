// Bpe: byte-pair merges over one pre-token at a time.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "potstill/text/tokenizer.h"

namespace potstill {

class Bpe {
 public:
  // Throws Error(kFormat) for a merge that is not "left right" or whose parts or result are no tokens.
  Bpe(const Vocabulary& vocabulary, std::string_view where);

  // Appends the ids of a pre-token. Bytes without a token of their own are dropped, as `tokenizers` does without an
  // unknown token. Thread-safe.
  void encode(std::string_view word, std::vector<TokenId>& out) const;

  // The bytes an id stands for; a token with characters outside the byte alphabet stands for its own text.
  std::string_view bytes(TokenId id) const {
    const auto i = static_cast<size_t>(id);
    return {arena_.data() + offsets_[i], offsets_[i + 1] - offsets_[i]};
  }
  // The token of exactly these bytes, -1 if none.
  TokenId find(std::string_view bytes) const;
  // The token that a vocabulary spells so ("Ġthe"), -1 if none.
  TokenId find_spelled(std::string_view spelling) const;

 private:
  struct WordSlot {
    uint64_t key = 0;   // up to 8 bytes: the bytes themselves; beyond: a hash of them
    uint32_t size = 0;  // 0: free
    TokenId id = -1;
  };
  struct Merge {
    uint32_t rank = kNoMerge;
    TokenId id = -1;
  };
  struct MergeSlot {
    uint64_t pair = kNoPair;  // left id << 32 | right id
    Merge merge;
  };
  static constexpr uint32_t kNoMerge = 0xFFFFFFFF;
  static constexpr uint64_t kNoPair = ~uint64_t{0};

  void add_tokens(const Vocabulary& vocabulary, std::string_view where);
  void add_merges(const Vocabulary& vocabulary, std::string_view where);
  size_t word_slot(uint64_t key, std::string_view word) const;
  Merge merge_of(TokenId left, TokenId right) const;
  void merge_short(const TokenId* symbols, size_t count, std::vector<TokenId>& out) const;
  void merge_long(const TokenId* symbols, size_t count, std::vector<TokenId>& out) const;
  void merge_bytes(std::string_view word, std::vector<TokenId>& out) const;

  std::string arena_;
  std::vector<uint32_t> offsets_;
  std::vector<WordSlot> words_;
  std::vector<MergeSlot> merges_;
  bool has_twins_ = false;  // two tokens with one spelling
  int words_shift_ = 63, merges_shift_ = 63;
  TokenId byte_tokens_[256];
  // What is known of the token as a word: nothing yet, that its merges end in it, that they do not.
  enum Wholeness : uint8_t { kUnasked, kWhole, kBroken };
  std::unique_ptr<std::atomic<uint8_t>[]> wholeness_;
};

}  // namespace potstill
