// A model larger than memory behind the LanguageModel seam: it scores, and does not write.
#pragma once

#include <memory>

#include "potstill/lm/language_model.h"
#include "potstill/nn/layer_stream.h"

namespace potstill {

// score() reads each layer's weights once for all of its requests (scorer.h): ask for many at a time. generate() and
// choose() throw Error(kUsage). Borrows nothing: the package is shared.
std::unique_ptr<LanguageModel> make_layer_major_model(const ModelPackage& package, const LayerStreamOptions& options);

}  // namespace potstill
