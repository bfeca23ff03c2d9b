#include "potstill/lm/gguf_export.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>

#include "potstill/base/check.h"
#include "potstill/base/checked_math.h"
#include "potstill/base/error.h"
#include "potstill/formats/ggml_blocks.h"
#include "potstill/formats/gguf_checkpoint.h"
#include "potstill/lm/gguf_vocabulary.h"

namespace potstill {
namespace {

constexpr uint64_t kChunkBytes = 4 << 20;  // rows asked for at a time
constexpr uint64_t kQuantizationVersion = 2;

bool is_table(std::string_view name) { return name == "model.embed_tokens.weight" || name == "lm_head.weight"; }

// llama.cpp loads Mistral as a llama: the same layers.
std::string architecture_of(const ModelConfig& config) {
  return config.model_type == "mistral" ? "llama" : config.model_type;
}

// LLAMA_FTYPE_*: the type of most weights.
uint64_t file_type(const std::vector<GgufExportTensor>& tensors) {
  std::map<DType, int64_t> count;
  for (const GgufExportTensor& tensor : tensors) {
    if (tensor.shape.size() > 1 && !is_table(tensor.name))
      count[tensor.dtype] += num_elements(tensor.shape).value_or(0);
  }
  const auto most = std::ranges::max_element(count, {}, [](const auto& entry) { return entry.second; });
  constexpr std::array<std::pair<DType, uint64_t>, 6> kFileTypes{{{DType::kF32, 0},
                                                                  {DType::kF16, 1},
                                                                  {DType::kQ4_0, 2},
                                                                  {DType::kQ4_1, 3},
                                                                  {DType::kQ8_0, 7},
                                                                  {DType::kBF16, 32}}};
  for (const auto& [dtype, id] : kFileTypes) {
    if (most != count.end() && most->first == dtype) return id;
  }
  return 0;
}

// "135M", "1.2B", as the Hub's model names have it.
std::string size_label(int64_t parameters) {
  const double count = static_cast<double>(parameters);
  if (count < 1e9) return fmt::format("{:.0f}M", count / 1e6);
  return fmt::format("{:.1f}B", count / 1e9);
}

std::string model_name(const ModelPackage& model, const GgufExportOptions& options) {
  if (!options.name.empty()) return options.name;
  const auto path = model.path.has_filename() ? model.path : model.path.parent_path();
  return path.has_extension() && path.extension() == ".gguf" ? path.stem().string() : path.filename().string();
}

void add_shape_keys(GgufMetadata& metadata, const std::string& arch, const ModelConfig& config) {
  const auto add = [&](std::string_view key, GgufValue value) {
    metadata.emplace_back(fmt::format("{}.{}", arch, key), std::move(value));
  };
  const auto add_size = [&](std::string_view key, int64_t value) {
    add(key, GgufValue::u32(static_cast<uint64_t>(value)));
  };
  add_size("vocab_size", config.vocab_size);
  add_size("context_length", config.max_position_embeddings);
  add_size("embedding_length", config.hidden_size);
  add_size("block_count", config.num_hidden_layers);
  add_size("feed_forward_length", config.intermediate_size);
  add_size("attention.head_count", config.num_attention_heads);
  add_size("attention.head_count_kv", config.num_key_value_heads);
  add("attention.layer_norm_rms_epsilon", GgufValue::f32(config.rms_norm_eps));
  if (config.head_dim * config.num_attention_heads != config.hidden_size) {
    add_size("attention.key_length", config.head_dim);
    add_size("attention.value_length", config.head_dim);
  }
  add_size("rope.dimension_count", config.head_dim);
  add("rope.freq_base", GgufValue::f32(config.rope_theta));
  if (config.rope_scaling.rope_type == "linear") {  // llama3's rule goes into rope_freqs.weight instead
    add("rope.scaling.type", GgufValue::string("linear"));
    add("rope.scaling.factor", GgufValue::f32(config.rope_scaling.factor));
  }
  if (config.sliding_window > 0) add_size("attention.sliding_window", config.sliding_window);
}

GgufMetadata export_metadata(const ModelPackage& model, const ModelConfig& config,
                             const std::vector<GgufExportTensor>& tensors, const GgufExportOptions& options) {
  const std::string arch = architecture_of(config);
  GgufMetadata metadata = {{"general.architecture", GgufValue::string(arch)},
                           {"general.type", GgufValue::string("model")},
                           {"general.name", GgufValue::string(model_name(model, options))},
                           {"general.size_label", GgufValue::string(size_label(num_parameters(config)))}};
  if (!options.base_model.empty()) {
    metadata.emplace_back("general.base_model.count", GgufValue::u32(1));
    metadata.emplace_back("general.base_model.0.name", GgufValue::string(options.base_model));
  }
  if (!options.quantized_by.empty()) {
    metadata.emplace_back("general.quantized_by", GgufValue::string(options.quantized_by));
  }
  metadata.emplace_back("general.file_type", GgufValue::u32(file_type(tensors)));
  metadata.emplace_back("general.quantization_version", GgufValue::u32(kQuantizationVersion));
  add_shape_keys(metadata, arch, config);
  const std::string_view end_of_turn = model.chat_template.end_of_turn();
  const auto end_id = end_of_turn.empty() ? std::nullopt : model.tokenizer->id_of(end_of_turn);
  const auto vocabulary = vocabulary_to_gguf(model.tokenizer->vocabulary(), config.vocab_size, end_id);
  metadata.insert(metadata.end(), vocabulary.begin(), vocabulary.end());
  // llama.cpp stops at three ids: EOS, end of turn, and what this key names (Llama 3.1's end of message)
  for (const TokenId id : stop_token_ids(model)) {
    if (id == model.tokenizer->vocabulary().eos || id == end_id) continue;
    metadata.emplace_back("tokenizer.ggml.eom_token_id", GgufValue::u32(static_cast<uint64_t>(id)));
    break;
  }
  if (!model.chat_template.jinja_source().empty()) {
    metadata.emplace_back("tokenizer.chat_template", GgufValue::string(model.chat_template.jinja_source()));
  }
  metadata.insert(metadata.end(), options.extra.begin(), options.extra.end());
  return metadata;
}

// The given tensors in the order of the forward pass, checked against the config.
std::vector<const GgufExportTensor*> ordered_tensors(const std::filesystem::path& path, const ModelConfig& config,
                                                     const std::vector<GgufExportTensor>& tensors) {
  std::map<std::string_view, const GgufExportTensor*> by_name;
  for (const GgufExportTensor& tensor : tensors) {
    if (!by_name.emplace(tensor.name, &tensor).second) {
      throw Error(ErrorKind::kInput, path.string(), fmt::format("tensor '{}' is given twice", tensor.name));
    }
    if (tensor.shape.size() < 2 && tensor.dtype != DType::kF32) {
      throw Error(
          ErrorKind::kInput, path.string(),
          fmt::format("vector '{}' is {}; llama.cpp takes F32 vectors alone", tensor.name, dtype_name(tensor.dtype)));
    }
  }
  std::vector<const GgufExportTensor*> ordered;
  for (const auto& [name, shape] : expected_weights(config)) {
    const auto found = by_name.find(name);
    if (found == by_name.end() || found->second->shape != shape) {
      throw Error(
          ErrorKind::kInput, path.string(),
          fmt::format("weight '{}' [{}] of the model {}", name, fmt::join(shape, ", "),
                      found == by_name.end() ? "is missing"
                                             : fmt::format("is given as [{}]", fmt::join(found->second->shape, ", "))));
    }
    ordered.push_back(found->second);
  }
  if (ordered.size() == tensors.size()) return ordered;
  const auto extra = std::ranges::find_if(
      tensors, [&](const GgufExportTensor& tensor) { return std::ranges::find(ordered, &tensor) == ordered.end(); });
  throw Error(ErrorKind::kInput, path.string(), fmt::format("tensor '{}' is not part of the model", extra->name));
}

// Puts rows of a chunk, which are whole heads, where llama.cpp expects them.
void permute_rows(std::span<const std::byte> rows, uint64_t row_bytes, int64_t head_dim, std::span<std::byte> out) {
  for (uint64_t row = 0; row * row_bytes < rows.size(); ++row) {
    const auto to = static_cast<uint64_t>(permuted_row(static_cast<int64_t>(row), head_dim));
    std::memcpy(out.data() + to * row_bytes, rows.data() + row * row_bytes, row_bytes);
  }
}

void write_tensor(GgufWriter& writer, const std::string& gguf_name, const GgufExportTensor& tensor, bool permuted,
                  int64_t head_dim) {
  const int64_t rows = tensor.shape.size() > 1 ? tensor.shape[0] : 1;
  const uint64_t row_bytes = tensor_bytes(tensor.dtype, tensor.shape).value() / static_cast<uint64_t>(rows);
  auto chunk_rows = static_cast<int64_t>(std::max<uint64_t>(1, kChunkBytes / row_bytes));
  if (permuted) chunk_rows = round_up(chunk_rows, head_dim);  // heads are never cut
  std::vector<std::byte> chunk, moved;
  for (int64_t row = 0; row < rows; row += chunk_rows) {
    const int64_t count = std::min(chunk_rows, rows - row);
    chunk.resize(static_cast<size_t>(count) * row_bytes);
    tensor.rows(row, count, chunk);
    if (permuted) {
      moved.resize(chunk.size());
      // a bias is one row to its giver, but its values move as rows do
      permute_rows(chunk, tensor.shape.size() > 1 ? row_bytes : sizeof(float), head_dim, moved);
      std::swap(chunk, moved);
    }
    writer.append(gguf_name, chunk);
  }
}

}  // namespace

void export_gguf(const std::filesystem::path& path, const ModelPackage& model, const ModelConfig& config,
                 const std::vector<GgufExportTensor>& tensors, const GgufExportOptions& options) {
  const auto ordered = ordered_tensors(path, config, tensors);
  const bool has_factors = config.rope_scaling.rope_type == "llama3";
  constexpr std::string_view kFactors = "rope_freqs.weight";
  std::vector<TensorSpec> specs;
  if (has_factors) specs.push_back({std::string(kFactors), DType::kF32, {config.head_dim / 2}});
  for (const GgufExportTensor* tensor : ordered) {
    specs.push_back({gguf_tensor_name(tensor->name).value(), tensor->dtype, tensor->shape});
  }
  GgufWriter writer(path, export_metadata(model, config, tensors, options), specs);
  if (has_factors) {
    const std::vector<float> factors = llama3_rope_factors(config);
    writer.append(kFactors, std::as_bytes(std::span(factors)));
  }
  const std::string arch = architecture_of(config);
  for (size_t i = 0; i < ordered.size(); ++i) {
    const bool permuted = permuted_heads(ordered[i]->name, arch, config) > 0;
    write_tensor(writer, specs[i + (has_factors ? 1 : 0)].name, *ordered[i], permuted, config.head_dim);
  }
  writer.finish();
}

GgufExportTensor gguf_export_tensor(const WeightSource& source, std::string_view name, DType dtype) {
  const WeightInfo& info = source.require(name);
  const int64_t rows = info.shape.size() > 1 ? info.shape[0] : 1;
  const int64_t row_values = num_elements(info.shape).value() / std::max<int64_t>(rows, 1);
  const auto write_rows = [&source, name = info.name, dtype, row_values](int64_t row_begin, int64_t num_rows,
                                                                         std::span<std::byte> out) {
    std::vector<float> values(static_cast<size_t>(num_rows * row_values));
    source.read_rows(name, row_begin, num_rows, values);
    const auto bad = std::ranges::find_if(values, [](float value) { return !std::isfinite(value); });
    if (bad != values.end()) {
      throw Error(ErrorKind::kNumeric, source.where(), fmt::format("tensor '{}' holds {}", name, *bad));
    }
    encode_row(dtype, values, out);
  };
  return {.name = info.name, .dtype = dtype, .shape = info.shape, .rows = write_rows};
}

std::vector<GgufExportTensor> gguf_export_tensors(const WeightSource& source, DType linears, DType embeddings) {
  std::vector<GgufExportTensor> tensors;
  for (const WeightInfo& weight : source.weights()) {
    const DType matrix = is_table(weight.name) ? embeddings : linears;
    tensors.push_back(gguf_export_tensor(source, weight.name, weight.shape.size() > 1 ? matrix : DType::kF32));
  }
  return tensors;
}

}  // namespace potstill
