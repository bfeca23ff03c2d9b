// Log-likelihoods of continuations by lm-evaluation-harness's rules, each context computed once.
#pragma once

#include <span>
#include <vector>

#include "potstill/lm/language_model.h"
#include "potstill/nn/layer_stream.h"
#include "potstill/nn/transformer.h"

namespace potstill {

// LanguageModel::score. Throws Error(kInput) for a continuation longer than the model's context.
std::vector<ScoreResult> score_continuations(const ModelPackage& package, const Transformer& model,
                                             std::span<const ScoreRequest> requests);

// The same for a model larger than memory: each layer's weights are read once for all requests, and dropped. The hidden
// states of all contexts are in memory meanwhile.
std::vector<ScoreResult> score_layer_major(const ModelPackage& package, std::span<const ScoreRequest> requests,
                                           const LayerStreamOptions& options);

// LanguageModel::choose. Candidates that begin with the same token get the same probability.
std::vector<std::vector<double>> choose_candidates(const ModelPackage& package, const Transformer& model,
                                                   std::span<const ChoiceRequest> requests);

}  // namespace potstill
