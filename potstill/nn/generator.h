// Answers to many requests over a CachedDecoder, with continuous refill of its slots.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "potstill/lm/language_model.h"
#include "potstill/nn/transformer.h"

namespace potstill {

// LanguageModel::generate. Throws Error(kInput) for a prompt that leaves no room for an answer in the model's context.
std::vector<GenerateResult> generate_texts(const ModelPackage& package, const Transformer& model, int64_t num_slots,
                                           std::span<const GenerateRequest> requests,
                                           const std::function<void(size_t, const GenerateResult&)>& on_done);

}  // namespace potstill
