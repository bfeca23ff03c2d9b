// Log-likelihoods of continuations by lm-evaluation-harness's rules, each context computed once.
#pragma once

#include <span>
#include <vector>

#include "potstill/lm/language_model.h"
#include "potstill/nn/transformer.h"

namespace potstill {

// LanguageModel::score. Throws Error(kInput) for a continuation longer than the model's context.
std::vector<ScoreResult> score_continuations(const ModelPackage& package, const Transformer& model,
                                             std::span<const ScoreRequest> requests);

// LanguageModel::choose. Candidates that begin with the same token get the same probability.
std::vector<std::vector<double>> choose_candidates(const ModelPackage& package, const Transformer& model,
                                                   std::span<const ChoiceRequest> requests);

}  // namespace potstill
