// How large a quantized model will be, from its shapes: said before the work.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>

#include "potstill/lm/model_package.h"
#include "potstill/quant/quantize_layer.h"

namespace potstill {

struct ExpectedSize {
  uint64_t folder_bytes = 0;      // tensors of the compressed-tensors folder
  uint64_t gguf_bytes = 0;        // the exported file: tensors, vocabulary, template
  uint64_t linears_bytes = 0;     // of gguf_bytes
  uint64_t embeddings_bytes = 0;  // of gguf_bytes: the table, and the head where it is not the same

  nlohmann::ordered_json to_json() const;
};

// embedding_bits: 4, 8 or 16. fake_quant: the folder holds float32.
ExpectedSize expected_size(const ModelPackage& model, const QuantizeSettings& settings, int64_t embedding_bits,
                           bool fake_quant);

}  // namespace potstill
