#include <fmt/format.h>

#include "potstill/base/error.h"
#include "potstill/base/log.h"
#include "potstill/cli/command.h"
#include "potstill/stages/export_stage.h"

namespace potstill {
namespace {

struct ExportOptions {
  std::filesystem::path model, out;
  ExportConfig config;
};

std::string describe(const std::string& path, const nlohmann::json& sizes, const nlohmann::json& proof) {
  std::string text = fmt::format("{}: {}", path, format_bytes(sizes.at("file_bytes").get<uint64_t>()));
  if (sizes.contains("linears_bytes")) {
    text += fmt::format(" (linears {}, embeddings {})", format_bytes(sizes.at("linears_bytes").get<uint64_t>()),
                        format_bytes(sizes.at("embeddings_bytes").get<uint64_t>()));
  }
  const auto& logits = proof.at("logits");
  return text +
         fmt::format(
             "\n  proof: {} weights equal, {} rounded within their type; logits differ by at most {:.2e}, KL {:.2e}; "
             "tokens and chat template equal",
             proof.at("weights_equal").get<int64_t>(), proof.at("weights_rounded").get<int64_t>(),
             logits.at("max_difference").get<double>(), logits.at("kl").get<double>());
}

// --out NAME.gguf is the file itself; any other --out is a folder with artifact.json.
void export_into_file(const ExportOptions& options, const GlobalOptions& global) {
  if (std::filesystem::exists(options.out) && !global.force) {
    throw Error(ErrorKind::kUsage, options.out.string(), "exists already", "another --out, or --force to replace it");
  }
  const auto result = export_gguf_file(options.model, options.config, options.out);
  print_result(global, result, describe(options.out.string(), result.at("sizes"), result.at("proof")));
}

}  // namespace

void add_export_command(CLI::App& app, GlobalOptions& global) {
  auto [command, options] =
      new_command<ExportOptions>(app, "export", "Write a model as its consumers load it, with proof");
  command->add_option("--model", options->model, "compressed-tensors or Hugging Face folder, or GGUF file")->required();
  command->add_option("--out", options->out, "FILE.gguf, or a folder")->required();
  add_config_flags(*command, options->config);
  command->callback([options = options, &global] {
    check_config(options->config, "export");
    if (options->config.format == "gguf" && options->out.extension() == ".gguf") {
      return export_into_file(*options, global);
    }
    const StageKey key{.stage = "export",
                       .config = config_to_json(options->config),
                       .inputs = {{"model", options->model}},
                       .seed = global.seed};
    const auto artifact = run_stage(options->out, key, global.if_exists(), [&](ArtifactWriter& out) {
      run_export_stage(options->model, options->config, out);
    });
    print_result(global, artifact.manifest,
                 describe(artifact.path.string(), artifact.results().at("sizes"), artifact.results().at("proof")));
  });
}

}  // namespace potstill
