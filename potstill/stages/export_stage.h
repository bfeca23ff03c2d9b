// export: a model as the file that its consumers load, proven equal to its source.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

#include "potstill/quant/quant_config.h"
#include "potstill/stages/artifact.h"

namespace potstill {

// Writes model.gguf with a Modelfile for Ollama, or the files of a folder, and a model card; records sizes and the
// proof. A failed proof throws, and nothing appears under the artifact's name.
void run_export_stage(const std::filesystem::path& model, const ExportConfig& config, ArtifactWriter& out);

// The same into one GGUF file, NAME.gguf with NAME.Modelfile beside it, without a manifest; returns sizes and proof.
nlohmann::ordered_json export_gguf_file(const std::filesystem::path& model, const ExportConfig& config,
                                        const std::filesystem::path& file);

}  // namespace potstill
