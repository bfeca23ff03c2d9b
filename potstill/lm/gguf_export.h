// Export of a model as one GGUF file that llama.cpp, Ollama, LM Studio and potstill-edge load.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "potstill/base/dtype.h"
#include "potstill/formats/gguf.h"
#include "potstill/formats/model_config.h"
#include "potstill/lm/model_package.h"

namespace potstill {

// One weight of the file. rows(row_begin, num_rows, out) writes whole encoded rows of `dtype` in Hugging Face's row
// order; a vector is one row. Rows are asked for front to back.
struct GgufExportTensor {
  std::string name;  // Hugging Face's: "model.layers.0.self_attn.q_proj.weight"
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  // torch order
  std::function<void(int64_t row_begin, int64_t num_rows, std::span<std::byte> out)> rows;
};

struct GgufExportOptions {
  std::string name;          // general.name; empty = the folder's or file's name
  std::string base_model;    // general.base_model.0.name, when the model was made from another
  std::string quantized_by;  // general.quantized_by; empty = left out
  GgufMetadata extra;        // further keys ("potstill.…"), at the end
};

// Writes config, tokenizer, chat template and tensors. Every weight that `config` names must be in `tensors`, and
// nothing else (no lm_head.weight when tied). Vectors must be F32: llama.cpp takes no other.
// Throws Error(kInput) for a model that GGUF cannot hold, Error(kIo).
void export_gguf(const std::filesystem::path& path, const ModelPackage& model, const ModelConfig& config,
                 const std::vector<GgufExportTensor>& tensors, const GgufExportOptions& options = {});

// The weight of a source, read as fp32 and encoded as `dtype` by ggml's reference rules (F32, F16, BF16, Q8_0, Q4_0,
// Q4_1). The source must outlive the result.
GgufExportTensor gguf_export_tensor(const WeightSource& source, std::string_view name, DType dtype);

// All weights of a model: matrices as `linears`, the embedding table and the head as `embeddings`, vectors as F32.
std::vector<GgufExportTensor> gguf_export_tensors(const WeightSource& source, DType linears, DType embeddings);

}  // namespace potstill
