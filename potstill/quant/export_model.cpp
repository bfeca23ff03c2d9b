#include "potstill/quant/export_model.h"

#include <fmt/format.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"
#include "potstill/formats/quantized_checkpoint.h"
#include "potstill/lm/gguf_export.h"
#include "potstill/lm/model_origin.h"

namespace potstill {
namespace {

DType parse_gguf_dtype(const std::string& word) {
  if (word == "q4_0") return DType::kQ4_0;
  if (word == "q4_1") return DType::kQ4_1;
  if (word == "q8_0") return DType::kQ8_0;
  if (word == "bf16") return DType::kBF16;
  return DType::kF16;
}

bool is_embedding(std::string_view name) { return name == "model.embed_tokens.weight" || name == "lm_head.weight"; }

// A linear that is 4-bit already: its own codes as blocks.
GgufExportTensor packed_tensor(const QuantizedCheckpoint& checkpoint, const WeightInfo& info) {
  auto linear = std::make_shared<QuantizedLinear>();  // unpacked when its first row is asked for, gone after its last
  const DType dtype = checkpoint.bits(info.name) == 8 ? DType::kQ8_0
                      : checkpoint.symmetric()        ? DType::kQ4_0
                                                      : DType::kQ4_1;
  return {
      .name = info.name,
      .dtype = dtype,
      .shape = info.shape,
      .rows = [&checkpoint, linear, name = info.name, dtype](int64_t begin, int64_t count, std::span<std::byte> out) {
        if (linear->codes.empty()) *linear = checkpoint.linear(name);
        write_block_rows(*linear, dtype, begin, count, out);
        if (begin + count == linear->out_features) *linear = {};
      }};
}

// What `quantize --embeddings` said, where the model is such an artifact; else 8 bits.
DType automatic_embeddings(const ModelPackage& model) {
  const auto manifest = model.path / "artifact.json";
  if (!std::filesystem::is_directory(model.path) || !std::filesystem::exists(manifest)) return DType::kQ8_0;
  const auto json = read_json_file(manifest);
  const auto results = json.value("results", nlohmann::json::object());
  const auto bits = results.is_object() ? results.value("embeddings_bits", nlohmann::json()) : nlohmann::json();
  return bits == 4 ? DType::kQ4_0 : bits == 16 ? DType::kF16 : DType::kQ8_0;
}

std::vector<GgufExportTensor> export_tensors(const ModelPackage& model, const ExportConfig& config) {
  const DType embeddings =
      config.embeddings == "auto" ? automatic_embeddings(model) : parse_gguf_dtype(config.embeddings);
  const auto* packed = dynamic_cast<const QuantizedCheckpoint*>(model.weights.get());
  if (packed == nullptr) {
    const DType linears = config.weights == "auto" ? DType::kF16 : parse_gguf_dtype(config.weights);
    return gguf_export_tensors(*model.weights, linears, embeddings);
  }
  const std::string own = packed->symmetric() ? "q4_0" : "q4_1";
  if (config.weights != "auto" && config.weights != own) {
    throw Error(
        ErrorKind::kUsage, model.path.string(),
        fmt::format("the model is in 4 bits already and weights '{}' would round or inflate it", config.weights),
        "--weights auto keeps its codes; export the model that it was quantized from for other types");
  }
  std::vector<GgufExportTensor> tensors;
  for (const auto& info : model.weights->weights()) {
    if (model.config.tie_word_embeddings && info.name == "lm_head.weight") continue;
    if (packed->is_quantized(info.name)) {
      tensors.push_back(packed_tensor(*packed, info));
    } else {
      const DType matrix = is_embedding(info.name) ? embeddings : DType::kF16;
      tensors.push_back(gguf_export_tensor(*model.weights, info.name, info.shape.size() > 1 ? matrix : DType::kF32));
    }
  }
  return tensors;
}

}  // namespace

nlohmann::ordered_json export_gguf_model(const ModelPackage& model, const ExportConfig& config,
                                         const std::filesystem::path& file) {
  check_config(config, "export");
  const auto tensors = export_tensors(model, config);
  nlohmann::ordered_json types = nlohmann::ordered_json::object();
  uint64_t linears = 0, embeddings = 0, others = 0;
  for (const auto& tensor : tensors) {
    const uint64_t bytes = TensorSpec{tensor.name, tensor.dtype, tensor.shape}.bytes();
    (is_embedding(tensor.name) ? embeddings : tensor.shape.size() > 1 ? linears : others) += bytes;
    auto& count = types[std::string(dtype_name(tensor.dtype))];
    count = count.is_null() ? 1 : count.get<int64_t>() + 1;
  }
  const auto origin = derived_origin(read_model_origin(model.path));
  export_gguf(
      file, model, model.config, tensors,
      {.name = {}, .base_model = {}, .quantized_by = "potstill " POTSTILL_VERSION, .extra = origin_to_gguf(origin)});
  return {{"linears_bytes", linears},
          {"embeddings_bytes", embeddings},
          {"other_bytes", others},
          {"file_bytes", std::filesystem::file_size(file)},
          {"tensors", types}};
}

nlohmann::ordered_json export_compressed_tensors_model(const ModelPackage& model, const std::filesystem::path& folder) {
  if (model.format != "compressed-tensors") {
    throw Error(ErrorKind::kUsage, model.path.string(),
                fmt::format("is a {} model and not in 4 bits yet", model.format),
                "potstill quantize writes the compressed-tensors folder");
  }
  uint64_t bytes = 0;
  std::filesystem::create_directories(folder);
  for (const auto& entry : std::filesystem::directory_iterator(model.path)) {
    const std::string name = entry.path().filename().string();
    const bool is_model_file = entry.path().extension() == ".safetensors" || entry.path().extension() == ".json" ||
                               entry.path().extension() == ".jinja" || name == "README.md";
    if (!entry.is_regular_file() || !is_model_file || name == "artifact.json") continue;
    std::filesystem::copy_file(entry.path(), folder / name, std::filesystem::copy_options::overwrite_existing);
    bytes += entry.file_size();
  }
  return {{"file_bytes", bytes}};
}

}  // namespace potstill
