// Grammars of JSON: of any object, and of what a JSON Schema describes.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "potstill/lm/grammar.h"

namespace potstill {

// Any JSON object. All grammars here bound what a small model would repeat for ever: blanks between tokens, digits of a
// number, and nesting (some 100 levels).
Grammar json_object_grammar();

// The documents of a schema, their keys in the schema's order; other keys than the named ones are not written. Taken:
// type, properties, required, additionalProperties, items, minItems, maxItems, enum, const, anyOf, oneOf, allOf with
// one entry, $ref into the schema, minLength, maxLength, minimum and maximum of an integer that has both and lies
// within a thousand values; title, description, default, examples and the like are read over. Throws Error(kInput),
// which names the place, for a keyword that it cannot keep.
Grammar json_schema_grammar(const nlohmann::ordered_json& schema, std::string_view where);

}  // namespace potstill
