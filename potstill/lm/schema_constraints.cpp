#include "potstill/lm/schema_constraints.h"

#include "potstill/formats/strict_json.h"
#include "potstill/lm/json_grammar.h"

namespace potstill {

std::shared_ptr<const Grammar> SchemaConstraints::grammar(const std::string& schema) {
  auto& grammar = grammars_[schema];
  if (!grammar) {
    const auto parsed = parse_strict_ordered_json(schema, "json_schema", /*max_depth=*/64);  // as the server's bodies
    grammar = std::make_shared<Grammar>(json_schema_grammar(parsed, "json_schema"));
  }
  return grammar;
}

std::optional<TokenConstraint> SchemaConstraints::constraint(const std::string& schema) {
  if (schema.empty()) return std::nullopt;
  if (!vocabulary_) vocabulary_ = std::make_shared<VocabularyBytes>(tokenizer_, vocab_size_);
  return TokenConstraint(grammar(schema), vocabulary_, stop_ids_);
}

}  // namespace potstill
