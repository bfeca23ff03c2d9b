// An Ollama Modelfile: `ollama create NAME -f Modelfile` beside the exported GGUF.
#pragma once

#include <string>
#include <string_view>

#include "potstill/lm/model_package.h"

namespace potstill {

// FROM ./gguf_name, the chat template in Ollama's language for the families that have one, and the strings at which the
// model stops.
std::string ollama_modelfile(const ModelPackage& model, std::string_view gguf_name);

}  // namespace potstill
