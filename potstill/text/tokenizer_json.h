// tokenizer.json and tokenizer_config.json <-> Vocabulary.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "potstill/text/tokenizer.h"

namespace potstill {

// Throws Error(kFormat | kInput) with the key at fault. `tokenizer_config` may be null.
Vocabulary vocabulary_from_json(const nlohmann::json& tokenizer_json, const nlohmann::json& tokenizer_config,
                                std::string_view where);
nlohmann::ordered_json vocabulary_to_tokenizer_json(const Vocabulary& vocabulary);
nlohmann::ordered_json vocabulary_to_tokenizer_config(const Vocabulary& vocabulary);

}  // namespace potstill
