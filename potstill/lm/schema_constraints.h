// SchemaConstraints: a model's requests held to JSON Schemas. Each schema is read once, and the vocabulary is laid out
// for the first request that has one.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "potstill/lm/grammar.h"
#include "potstill/lm/token_constraint.h"

namespace potstill {

class SchemaConstraints {
 public:
  // Borrows the tokenizer. vocab_size: the logits' width, at least the tokenizer's size.
  SchemaConstraints(const Tokenizer& tokenizer, int64_t vocab_size, std::vector<TokenId> stop_ids)
      : tokenizer_(tokenizer), vocab_size_(vocab_size), stop_ids_(std::move(stop_ids)) {}

  // Throws Error(kFormat) for text that is no JSON, Error(kInput) for a schema that json_schema_grammar() cannot keep.
  std::shared_ptr<const Grammar> grammar(const std::string& schema);
  // At the beginning of an answer; nothing for GenerateRequest::json_schema's "".
  std::optional<TokenConstraint> constraint(const std::string& schema);

 private:
  const Tokenizer& tokenizer_;
  int64_t vocab_size_;
  std::vector<TokenId> stop_ids_;
  std::shared_ptr<const VocabularyBytes> vocabulary_;
  std::map<std::string, std::shared_ptr<const Grammar>> grammars_;
};

}  // namespace potstill
