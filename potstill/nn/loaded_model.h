// A Transformer that is in memory already (a base with its adapter, a trial's student) behind the LanguageModel seam.
#pragma once

#include <memory>
#include <string>

#include "potstill/lm/language_model.h"
#include "potstill/nn/transformer.h"

namespace potstill {

// Shares the model's tensors. `name` identifies the weights: it goes into journals. num_slots: TorchModelOptions'.
std::unique_ptr<LanguageModel> make_loaded_model(const ModelPackage& package, Transformer model, std::string name,
                                                 int64_t num_slots = 1);

}  // namespace potstill
