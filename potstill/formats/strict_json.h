// JSON of untrusted headers: as nlohmann reads it, and no duplicate key, no deep nesting, UTF-8 alone.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

namespace potstill {

// Throws Error(kFormat) that names the key which stands twice, or the byte that is no JSON.
nlohmann::json parse_strict_json(std::string_view text, std::string_view where, int max_depth = 16);

// The same with the keys in the text's order, at most 1024 in one object.
nlohmann::ordered_json parse_strict_ordered_json(std::string_view text, std::string_view where, int max_depth = 16);

// Whether text is UTF-8: no overlong forms, no surrogates, nothing past U+10FFFF.
bool is_utf8(std::string_view text);

}  // namespace potstill
