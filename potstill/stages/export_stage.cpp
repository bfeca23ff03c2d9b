#include "potstill/stages/export_stage.h"

#include <fmt/format.h>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
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

}  // namespace

void run_export_stage(const std::filesystem::path& model, const ExportConfig& config, ArtifactWriter& out) {
  const ModelPackage source = open_model(model);
  if (config.format == "gguf") {
    out.record("sizes", export_gguf_model(source, config, out.file("model.gguf")));
    out.record("proof", prove_export(source, out.file("model.gguf")));
  } else {
    out.record("sizes", export_folder(source, config.format, out.folder()));
    out.record("proof", prove_export(source, out.folder()));
  }
}

nlohmann::ordered_json export_gguf_file(const std::filesystem::path& model, const ExportConfig& config,
                                        const std::filesystem::path& file) {
  const ModelPackage source = open_model(model);
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
  result["sizes"] = export_gguf_model(source, config, unproven);
  result["proof"] = prove_export(source, unproven);
  std::error_code failure;
  std::filesystem::rename(unproven, file, failure);
  if (failure) throw Error(ErrorKind::kIo, file.string(), fmt::format("cannot be created: {}", failure.message()));
  sync_directory(file.parent_path().empty() ? "." : file.parent_path());
  return result;
}

}  // namespace potstill
