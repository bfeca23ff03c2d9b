#include "potstill/stages/export_stage.h"

#include <fmt/format.h>

#include <cmath>
#include <string>
#include <utility>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"
#include "potstill/base/log.h"
#include "potstill/formats/quantized_checkpoint.h"
#include "potstill/lm/model_origin.h"
#include "potstill/lm/ollama_modelfile.h"
#include "potstill/quant/consumers.h"
#include "potstill/quant/export_folder.h"
#include "potstill/quant/export_model.h"

namespace potstill {
namespace {

nlohmann::ordered_json export_folder(const ModelPackage& source, const std::string& format,
                                     const std::filesystem::path& folder) {
  if (format == "gptq" || format == "gptq-v2") return export_gptq_model(source, format == "gptq" ? 1 : 2, folder);
  if (format == "safetensors") return export_dequantized_model(source, folder);
  return export_compressed_tensors_model(source, folder);
}

// Refuses before the work what the named consumers do.
void check_consumers(const ModelPackage& source, const ExportConfig& config) {
  ConsumerPlan plan{.format = config.format};
  const auto* packed = dynamic_cast<const QuantizedCheckpoint*>(source.weights.get());
  plan.quantized = packed != nullptr;
  if (packed != nullptr) {
    plan.group_size = packed->group_size();
    plan.symmetric = packed->symmetric();
  }
  require_consumers(source.config, plan, config.consumers, "export");
}

// The sizes that `quantize` foretold, where the model is its artifact.
nlohmann::json expected_sizes(const std::filesystem::path& model) {
  const auto manifest = model / "artifact.json";
  if (!std::filesystem::is_directory(model) || !std::filesystem::exists(manifest)) return nullptr;
  const auto results = read_json_file(manifest).value("results", nlohmann::json());
  return results.is_object() ? results.value("expected", nlohmann::json()) : nlohmann::json();
}

nlohmann::ordered_json compared_with_expected(nlohmann::ordered_json sizes, const std::filesystem::path& model,
                                              const ExportConfig& config) {
  const auto expected = expected_sizes(model);
  if (!expected.is_object() || config.format != "gguf" || config.embeddings != "auto") return sizes;
  const auto bytes = expected.value("gguf_bytes", uint64_t{0});
  sizes["expected_bytes"] = bytes;
  const auto actual = sizes["file_bytes"].get<double>();
  if (std::fabs(actual / static_cast<double>(bytes) - 1) > 0.01) {
    log_warning("the file has {} where {} were expected", format_bytes(static_cast<uint64_t>(actual)),
                format_bytes(bytes));
  }
  return sizes;
}

std::string card_body(const ModelPackage& source, const nlohmann::ordered_json& sizes,
                      const nlohmann::ordered_json& proof) {
  std::string text = fmt::format("Exported from {} by potstill {}.\n\n| | |\n|---|---|\n",
                                 source.path.filename().string(), POTSTILL_VERSION);
  text += fmt::format("| size | {} |\n", format_bytes(sizes.at("file_bytes").get<uint64_t>()));
  if (sizes.contains("tensors")) {
    for (const auto& [type, count] : sizes.at("tensors").items())
      text += fmt::format("| {} tensors | {} |\n", type, count.dump());
  }
  const auto& logits = proof.at("logits");
  text += fmt::format(
      "| weights equal to the source's | {} |\n| weights rounded to their type | {} |\n"
      "| largest difference of a logit on a probe text | {:.2e} |\n| KL to the source | {:.2e} |\n",
      proof.at("weights_equal").get<int64_t>(), proof.at("weights_rounded").get<int64_t>(),
      logits.at("max_difference").get<double>(), logits.at("kl").get<double>());
  return text;
}

}  // namespace

void run_export_stage(const std::filesystem::path& model, const ExportConfig& config, ArtifactWriter& out) {
  const ModelPackage source = open_model(model);
  check_consumers(source, config);
  const bool gguf = config.format == "gguf";
  auto sizes = gguf ? export_gguf_model(source, config, out.file("model.gguf"))
                    : export_folder(source, config.format, out.folder());
  sizes = compared_with_expected(std::move(sizes), model, config);
  const auto proof = prove_export(source, gguf ? out.file("model.gguf") : out.folder());
  if (gguf) write_file_atomically(out.file("Modelfile"), ollama_modelfile(source, "model.gguf"));
  if (config.format != "compressed-tensors") {  // that one is copied, its card with it
    const auto origin = derived_origin(read_model_origin(model));
    write_file_atomically(out.file("README.md"),
                          model_card(origin, fmt::format("{} ({})", origin.name, config.format),
                                     {gguf ? "gguf" : config.format}, card_body(source, sizes, proof)));
  }
  out.record("sizes", std::move(sizes));
  out.record("proof", proof);
}

nlohmann::ordered_json export_gguf_file(const std::filesystem::path& model, const ExportConfig& config,
                                        const std::filesystem::path& file) {
  const ModelPackage source = open_model(model);
  check_consumers(source, config);
  // The name is the file's only once it is proven. ".gguf" stays at the end: readers go by it.
  std::filesystem::path unproven = file;
  unproven.replace_extension(".unproven.gguf");
  struct Remove {
    const std::filesystem::path& path;
    ~Remove() {
      std::error_code ignored;
      std::filesystem::remove(path, ignored);  // of no effect once it was renamed
    }
  } const cleanup{unproven};
  nlohmann::ordered_json result;
  result["file"] = file.string();
  result["sizes"] = compared_with_expected(export_gguf_model(source, config, unproven), model, config);
  result["proof"] = prove_export(source, unproven);
  std::error_code failure;
  std::filesystem::rename(unproven, file, failure);
  if (failure) throw Error(ErrorKind::kIo, file.string(), fmt::format("cannot be created: {}", failure.message()));
  auto modelfile = file;
  modelfile.replace_extension(".Modelfile");
  write_file_atomically(modelfile, ollama_modelfile(source, file.filename().string()));
  sync_directory(file.parent_path().empty() ? "." : file.parent_path());
  return result;
}

}  // namespace potstill
