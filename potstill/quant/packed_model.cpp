#include "potstill/quant/packed_model.h"

#include <fmt/format.h>

#include <map>
#include <utility>
#include <vector>

#include "potstill/base/atomic_file.h"
#include "potstill/base/check.h"
#include "potstill/base/checked_math.h"
#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"
#include "potstill/formats/compressed_tensors.h"
#include "potstill/nn/decoder_layer.h"
#include "potstill/nn/tensor_bridge.h"
#include "potstill/quant/copy_weight.h"

namespace potstill {
namespace {

constexpr std::string_view kChanged = "changed.";  // vectors that AWQ changed, in a kept layer's file

nlohmann::ordered_json quantization_config(const QuantizeSettings& settings) {
  CompressedTensorsConfig config;
  config.bits = settings.grid.bits;
  config.group_size = settings.grid.group_size;
  config.symmetric = settings.grid.symmetric;
  if (settings.method == QuantMethod::kGptq && settings.order == QuantOrder::kStatic) config.actorder = "static";
  CompressedTensorsOverride wide{.targets = {}, .bits = 8, .group_size = settings.grid.group_size};
  for (size_t i = 0; i < settings.eight_bits.size(); ++i) {
    if (!settings.eight_bits[i]) continue;
    wide.targets.push_back(linear_path(static_cast<int64_t>(i / kNumLinears), kLinearNames[i % kNumLinears]));
  }
  if (!wide.targets.empty()) config.overrides.push_back(std::move(wide));
  return compressed_tensors_config_to_json(config);
}

std::vector<TensorSpec> packed_specs_of(const QuantizedLayer& layer) {
  std::vector<TensorSpec> specs;
  for (const auto& module : layer.modules) {
    const auto& weight = module.weight;
    for (auto& spec : packed_specs(module.row.path(), weight.codes.size(0), weight.codes.size(1), weight.group_size(),
                                   weight.symmetric, DType::kF16, weight.bits)) {
      specs.push_back(std::move(spec));
    }
  }
  return specs;
}

std::vector<uint8_t> shifted_bytes(const at::Tensor& signed_codes, int64_t bits) {
  const auto shifted = (signed_codes.to(at::kShort) + (1 << (bits - 1))).to(at::kByte).contiguous();
  const auto* bytes = shifted.const_data_ptr<uint8_t>();
  return {bytes, bytes + shifted.numel()};
}

at::Tensor signed_codes(const std::vector<uint8_t>& codes, at::IntArrayRef shape, int64_t bits) {
  auto tensor = at::empty(shape, at::kByte);
  std::copy(codes.begin(), codes.end(), tensor.mutable_data_ptr<uint8_t>());
  return (tensor.to(at::kShort) - (1 << (bits - 1))).to(at::kChar);
}

}  // namespace

QuantizedLinear to_quantized_linear(const std::string& module, const QuantizedWeight& weight) {
  QuantizedLinear linear;
  linear.name = module;
  linear.out_features = weight.codes.size(0);
  linear.in_features = weight.codes.size(1);
  linear.group_size = weight.group_size();
  linear.symmetric = weight.symmetric;
  linear.bits = weight.bits;
  linear.codes = shifted_bytes(weight.codes, weight.bits);
  const auto scales = weight.scales.contiguous();
  const auto* values = scales.const_data_ptr<float>();
  linear.scales.assign(values, values + scales.numel());
  if (!linear.symmetric) linear.zeros = shifted_bytes(weight.zeros, weight.bits);
  return linear;
}

QuantizedWeight from_quantized_linear(const QuantizedLinear& linear) {
  const int64_t O = linear.out_features, groups = linear.num_groups();
  QuantizedWeight weight;
  weight.symmetric = linear.symmetric;
  weight.bits = linear.bits;
  weight.codes = signed_codes(linear.codes, {O, linear.in_features}, linear.bits);
  weight.scales = at::empty({O, groups}, at::kFloat);
  std::copy(linear.scales.begin(), linear.scales.end(), weight.scales.mutable_data_ptr<float>());
  weight.zeros =
      linear.symmetric ? at::zeros({O, groups}, at::kChar) : signed_codes(linear.zeros, {O, groups}, linear.bits);
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
    for (const auto& info : checkpoint.weights()) {
      if (!info.name.starts_with(kChanged)) continue;
      const auto values = checkpoint.read(info.name);
      result.changed[info.name.substr(kChanged.size())] = at::tensor(at::ArrayRef<float>(values), at::kFloat);
    }
    return result;
  };
  keeper.save = [layer_folder, config = quantization_config(settings)](const QuantizedLayer& layer) {
    const auto path = layer_folder(layer.layer);
    std::filesystem::remove_all(path);
    std::filesystem::create_directories(path);
    write_file_atomically(path / "config.json", nlohmann::ordered_json{{"quantization_config", config}}.dump());
    auto specs = packed_specs_of(layer);
    for (const auto& [name, value] : layer.changed) {
      specs.push_back({std::string(kChanged) + name, DType::kF32, {value.numel()}});
    }
    SafetensorsFolderWriter writer(path, specs);
    for (const auto& [name, value] : layer.changed) {
      writer.append(std::string(kChanged) + name, view_of_tensor(name, value.contiguous()).bytes);
    }
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
    if (linear_of_weight(info.name)) continue;
    if (source.config.tie_word_embeddings && info.name == "lm_head.weight") continue;  // the table itself
    others.push_back(info);
    specs.push_back({info.name, DType::kF16, info.shape});
  }
  const auto require_layer = [&](int64_t layer) {
    auto quantized = layers.load(layer);
    POTSTILL_CHECK(quantized.has_value());
    return *std::move(quantized);
  };
  std::map<std::string, at::Tensor> changed;  // by the whole name
  for (int64_t layer = 0; layer < source.config.num_hidden_layers; ++layer) {
    const auto quantized = require_layer(layer);
    for (auto& spec : packed_specs_of(quantized)) specs.push_back(std::move(spec));
    for (const auto& [name, value] : quantized.changed) changed[fmt::format("model.layers.{}.{}", layer, name)] = value;
  }

  SafetensorsFolderWriter writer(folder, specs);
  for (const auto& info : others) {
    const auto other = changed.find(info.name);
    if (other == changed.end()) {
      copy_weight(*source.weights, info, DType::kF16, writer);
    } else {
      writer.append(info.name, view_of_tensor(info.name, other->second.to(at::kHalf).contiguous()).bytes);
    }
  }
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
