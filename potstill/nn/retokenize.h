// A model that speaks another tokenizer's ids: its tables' rows in another order, or fewer of them; the layers as they
// are.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "potstill/lm/model_package.h"

namespace potstill {

// Writes a Hugging Face folder with `tokenizer` whose embedding table has the rows input_ids of the model's and whose
// LM head has the rows output_ids of the model's. With equal lists, and ids that name the same tokens in `tokenizer`,
// it computes the model's own function under other names. With unequal lists a tied table is untied. dtype as of
// write_pruned's "auto". [V'] ids each, of the model's rows.
void write_retokenized(const ModelPackage& model, std::shared_ptr<const Tokenizer> tokenizer,
                       std::span<const TokenId> input_ids, std::span<const TokenId> output_ids,
                       const std::filesystem::path& folder);

}  // namespace potstill
