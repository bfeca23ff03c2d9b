// The tokenizer of a GGUF: its tokenizer.ggml.* keys <-> Vocabulary.          ggml-org/ggml docs/gguf.md;
// llama-vocab.cpp
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "potstill/formats/gguf.h"
#include "potstill/text/tokenizer.h"

namespace potstill {

// Throws Error(kFormat | kInput) with the key at fault: no byte-level BPE, a pre-tokenizer that is not known, …
Vocabulary vocabulary_from_gguf(const GgufFile& file);

// tokenizer.ggml.* keys; tokens are padded to vocab_size with "[PAD<id>]" of type unused. end_of_turn: the token that
// ends an answer, or nothing.
GgufMetadata vocabulary_to_gguf(const Vocabulary& vocabulary, int64_t vocab_size, std::optional<TokenId> end_of_turn);

}  // namespace potstill
