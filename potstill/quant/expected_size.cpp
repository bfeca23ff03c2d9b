#include "potstill/quant/expected_size.h"

#include <string_view>

#include "potstill/base/checked_math.h"
#include "potstill/formats/compressed_tensors.h"
#include "potstill/formats/model_weights.h"

namespace potstill {
namespace {

// A tensor of a GGUF file with its padding and its entry.
uint64_t in_gguf(DType dtype, const std::vector<int64_t>& shape) {
  constexpr uint64_t kEntry = 64, kAlignment = 32;
  const uint64_t bytes = TensorSpec{"", dtype, shape}.bytes();
  return (bytes + kAlignment - 1) / kAlignment * kAlignment + kEntry;
}

DType embedding_dtype(int64_t bits) { return bits == 4 ? DType::kQ4_0 : bits == 8 ? DType::kQ8_0 : DType::kF16; }

// As GGUF stores it: a length of 8 bytes before each string, 4 bytes of type a token.
uint64_t vocabulary_bytes(const ModelPackage& model) {
  const auto& vocabulary = model.tokenizer->vocabulary();
  uint64_t bytes = model.chat_template.jinja_source().size() + 2000;  // and the other keys
  for (const auto& token : vocabulary.tokens) bytes += token.size() + 12;
  for (const auto& merge : vocabulary.merges) bytes += merge.size() + 8;
  return bytes;
}

}  // namespace

nlohmann::ordered_json ExpectedSize::to_json() const {
  return {{"folder_bytes", folder_bytes},
          {"gguf_bytes", gguf_bytes},
          {"gguf_linears_bytes", linears_bytes},
          {"gguf_embeddings_bytes", embeddings_bytes}};
}

ExpectedSize expected_size(const ModelPackage& model, const QuantizeSettings& settings, int64_t embedding_bits,
                           bool fake_quant) {
  ExpectedSize size;
  size.gguf_bytes = vocabulary_bytes(model);
  for (const auto& [name, shape] : expected_weights(model.config)) {
    const DType plain = fake_quant ? DType::kF32 : DType::kF16;
    const bool table = name == "model.embed_tokens.weight" || name == "lm_head.weight";
    if (shape.size() < 2 || table) {
      const uint64_t gguf = in_gguf(table ? embedding_dtype(embedding_bits) : DType::kF32, shape);
      size.folder_bytes += TensorSpec{name, plain, shape}.bytes();
      size.gguf_bytes += gguf;
      if (table) size.embeddings_bytes += gguf;
      continue;
    }
    const auto [layer, index] = linear_of_weight(name).value();
    const GridSpec grid = settings.grid_of(layer, index, shape[1]);
    const DType block = grid.bits == 8 ? DType::kQ8_0 : grid.symmetric ? DType::kQ4_0 : DType::kQ4_1;
    const uint64_t gguf = in_gguf(block, shape);
    size.linears_bytes += gguf;
    size.gguf_bytes += gguf;
    if (fake_quant) {
      size.folder_bytes += TensorSpec{name, plain, shape}.bytes();
      continue;
    }
    for (const auto& spec :
         packed_specs(name, shape[0], shape[1], grid.group_size, grid.symmetric, DType::kF16, grid.bits)) {
      size.folder_bytes += spec.bytes();
    }
  }
  return size;
}

}  // namespace potstill
