#include "potstill/quant/export_folder.h"

#include <fmt/format.h>

#include <string>
#include <vector>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/formats/gptq_checkpoint.h"
#include "potstill/quant/copy_weight.h"

namespace potstill {
namespace {

std::string module_of(const WeightInfo& info) { return info.name.substr(0, info.name.rfind('.')); }

bool repeats_the_table(const ModelPackage& model, const WeightInfo& info) {
  return model.config.tie_word_embeddings && info.name == "lm_head.weight";
}

nlohmann::ordered_json finish_folder(SafetensorsFolderWriter& writer, const std::vector<TensorSpec>& specs) {
  writer.finish();
  uint64_t bytes = 0;
  for (const auto& spec : specs) bytes += spec.bytes();
  return {{"file_bytes", bytes}};
}

}  // namespace

nlohmann::ordered_json export_gptq_model(const ModelPackage& model, int version, const std::filesystem::path& folder) {
  const auto* packed = dynamic_cast<const QuantizedCheckpoint*>(model.weights.get());
  if (packed == nullptr) {
    throw Error(ErrorKind::kUsage, model.path.string(),
                fmt::format("is a {} model and not in 4 bits yet", model.format), "potstill quantize first");
  }
  std::vector<TensorSpec> specs;
  for (const auto& info : model.weights->weights()) {
    if (repeats_the_table(model, info)) continue;
    if (!packed->is_quantized(info.name)) {
      specs.push_back({info.name, DType::kF16, info.shape});
      continue;
    }
    const int64_t group = packed->group_size() > 0 ? packed->group_size() : info.shape[1];
    for (auto& spec : gptq_specs(module_of(info), info.shape[0], info.shape[1], group))
      specs.push_back(std::move(spec));
  }
  ModelConfig config = model.config;
  config.torch_dtype = "float16";
  write_model_files(model, config, folder);
  SafetensorsFolderWriter writer(folder, specs);
  for (const auto& info : model.weights->weights()) {
    if (repeats_the_table(model, info)) continue;
    if (packed->is_quantized(info.name)) {
      write_gptq(writer, packed->linear(info.name), version);
    } else {
      copy_weight(*model.weights, info, DType::kF16, writer);
    }
  }
  const GptqFileConfig format{.group_size = packed->group_size(), .symmetric = packed->symmetric(), .version = version};
  const auto json = gptq_config_to_json(format, "potstill:" POTSTILL_VERSION);
  auto config_json = nlohmann::ordered_json::parse(read_file(folder / "config.json"));
  config_json["quantization_config"] = json;
  write_file_atomically(folder / "config.json", config_json.dump(2) + "\n");
  write_file_atomically(folder / "quantize_config.json", json.dump(2) + "\n");
  return finish_folder(writer, specs);
}

nlohmann::ordered_json export_dequantized_model(const ModelPackage& model, const std::filesystem::path& folder) {
  std::vector<TensorSpec> specs;
  for (const auto& info : model.weights->weights()) {
    if (!repeats_the_table(model, info)) specs.push_back({info.name, DType::kF32, info.shape});
  }
  ModelConfig config = model.config;
  config.torch_dtype = "float32";
  write_model_files(model, config, folder);
  SafetensorsFolderWriter writer(folder, specs);
  for (const auto& info : model.weights->weights()) {
    if (!repeats_the_table(model, info)) copy_weight(*model.weights, info, DType::kF32, writer);
  }
  return finish_folder(writer, specs);
}

}  // namespace potstill
