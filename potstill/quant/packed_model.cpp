#include "potstill/quant/packed_model.h"

#include <fmt/format.h>

#include <utility>
#include <vector>

#include "potstill/base/atomic_file.h"
#include "potstill/base/check.h"
#include "potstill/base/checked_math.h"
#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"
#include "potstill/formats/compressed_tensors.h"
#include "potstill/nn/decoder_layer.h"
#include "potstill/quant/copy_weight.h"

namespace potstill {
namespace {

nlohmann::ordered_json quantization_config(const QuantizeSettings& settings) {
  CompressedTensorsConfig config;
  config.group_size = settings.grid.group_size;
  config.symmetric = settings.grid.symmetric;
  if (settings.gptq && settings.order == QuantOrder::kStatic) config.actorder = "static";
  return compressed_tensors_config_to_json(config);
}

bool is_quantized_weight(const std::string& name, const ModelConfig& config) {
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    for (const char* linear : kLinearNames) {
      if (name == linear_path(layer, linear) + ".weight") return true;
    }
  }
  return false;
}

std::vector<TensorSpec> packed_specs_of(const QuantizedLayer& layer) {
  std::vector<TensorSpec> specs;
  for (const auto& module : layer.modules) {
    const auto& weight = module.weight;
    for (auto& spec : packed_specs(module.row.path(), weight.codes.size(0), weight.codes.size(1), weight.group_size(),
                                   weight.symmetric)) {
      specs.push_back(std::move(spec));
    }
  }
  return specs;
}

std::vector<uint8_t> shifted_bytes(const at::Tensor& signed_codes) {
  const auto shifted = (signed_codes + 8).to(at::kByte).contiguous();
  const auto* bytes = shifted.const_data_ptr<uint8_t>();
  return {bytes, bytes + shifted.numel()};
}

at::Tensor signed_codes(const std::vector<uint8_t>& codes, at::IntArrayRef shape) {
  auto tensor = at::empty(shape, at::kByte);
  std::copy(codes.begin(), codes.end(), tensor.mutable_data_ptr<uint8_t>());
  return tensor.to(at::kChar) - 8;
}

}  // namespace

QuantizedLinear to_quantized_linear(const std::string& module, const QuantizedWeight& weight) {
  QuantizedLinear linear;
  linear.name = module;
  linear.out_features = weight.codes.size(0);
  linear.in_features = weight.codes.size(1);
  linear.group_size = weight.group_size();
  linear.symmetric = weight.symmetric;
  linear.codes = shifted_bytes(weight.codes);
  const auto scales = weight.scales.contiguous();
  const auto* values = scales.const_data_ptr<float>();
  linear.scales.assign(values, values + scales.numel());
  if (!linear.symmetric) linear.zeros = shifted_bytes(weight.zeros);
  return linear;
}

QuantizedWeight from_quantized_linear(const QuantizedLinear& linear) {
  const int64_t O = linear.out_features, groups = linear.num_groups();
  QuantizedWeight weight;
  weight.symmetric = linear.symmetric;
  weight.codes = signed_codes(linear.codes, {O, linear.in_features});
  weight.scales = at::empty({O, groups}, at::kFloat);
  std::copy(linear.scales.begin(), linear.scales.end(), weight.scales.mutable_data_ptr<float>());
  weight.zeros = linear.symmetric ? at::zeros({O, groups}, at::kChar) : signed_codes(linear.zeros, {O, groups});
  return weight;
}

LayerKeeper keep_layers_in(const std::filesystem::path& folder, const QuantizeSettings& settings) {
  const auto layer_folder = [folder](int64_t layer) { return folder / fmt::format("layer-{:05}", layer); };
  LayerKeeper keeper;
  keeper.load = [layer_folder](int64_t layer) -> std::optional<QuantizedLayer> {
    const auto path = layer_folder(layer);
    if (!std::filesystem::exists(path / "rows.json")) return std::nullopt;
    QuantizedLayer result{layer, {}};
    const CompressedTensorsCheckpoint checkpoint(path);
    for (const auto& row : read_json_file(path / "rows.json")) {
      QuantizedModule module{{}, ModuleRow::from_json(row)};
      module.weight = from_quantized_linear(checkpoint.linear(module.row.path() + ".weight"));
      result.modules.push_back(std::move(module));
    }
    return result;
  };
  keeper.save = [layer_folder, config = quantization_config(settings)](const QuantizedLayer& layer) {
    const auto path = layer_folder(layer.layer);
    std::filesystem::remove_all(path);
    std::filesystem::create_directories(path);
    write_file_atomically(path / "config.json", nlohmann::ordered_json{{"quantization_config", config}}.dump());
    SafetensorsFolderWriter writer(path, packed_specs_of(layer));
    nlohmann::ordered_json rows = nlohmann::ordered_json::array();
    for (const auto& module : layer.modules) {
      write_packed(writer, to_quantized_linear(module.row.path(), module.weight));
      rows.push_back(module.row.to_json());
    }
    writer.finish();
    write_file_atomically(path / "rows.json", rows.dump());
  };
  return keeper;
}

void write_packed_model(const ModelPackage& source, const QuantizeSettings& settings, const LayerKeeper& layers,
                        const std::filesystem::path& folder) {
  std::vector<TensorSpec> specs;
  std::vector<WeightInfo> others;
  for (const auto& info : source.weights->weights()) {
    if (is_quantized_weight(info.name, source.config)) continue;
    if (source.config.tie_word_embeddings && info.name == "lm_head.weight") continue;  // the table itself
    others.push_back(info);
    specs.push_back({info.name, DType::kF16, info.shape});
  }
  const auto require_layer = [&](int64_t layer) {
    auto quantized = layers.load(layer);
    POTSTILL_CHECK(quantized.has_value());
    return *std::move(quantized);
  };
  for (int64_t layer = 0; layer < source.config.num_hidden_layers; ++layer) {
    for (auto& spec : packed_specs_of(require_layer(layer))) specs.push_back(std::move(spec));
  }

  SafetensorsFolderWriter writer(folder, specs);
  for (const auto& info : others) copy_weight(*source.weights, info, DType::kF16, writer);
  for (int64_t layer = 0; layer < source.config.num_hidden_layers; ++layer) {
    for (const auto& module : require_layer(layer).modules) {
      write_packed(writer, to_quantized_linear(module.row.path(), module.weight));
    }
  }
  writer.finish();

  ModelConfig config = source.config;
  config.torch_dtype = "float16";
  write_model_files(source, config, folder);
  auto json = nlohmann::ordered_json::parse(read_file(folder / "config.json"));
  json["quantization_config"] = quantization_config(settings);
  write_file_atomically(folder / "config.json", json.dump(2) + "\n");
}

}  // namespace potstill
