// Whether a WeightSource holds what a ModelConfig names: every weight in its shape, and nothing else.
#pragma once

#include "potstill/formats/model_config.h"
#include "potstill/formats/weight_source.h"

namespace potstill {

// Throws Error(kFormat) that names the first weight that is missing, of another shape, of a type that holds no weights,
// or not part of the architecture.
void check_weights(const ModelConfig& config, const WeightSource& source);

}  // namespace potstill
