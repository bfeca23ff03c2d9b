#include <fmt/format.h>
#include <fmt/ranges.h>

#include "potstill/cli/command.h"
#include "potstill/stages/prune_stage.h"

namespace potstill {
namespace {

struct PruneOptions {
  PruneInputs inputs;
  std::filesystem::path out;
  PruneConfig config;
};

std::string describe(const Artifact& artifact) {
  const auto& results = artifact.results();
  const auto influence = results.at("influence").get<std::vector<double>>();
  std::string text = fmt::format("{}\n  layers {} of {}, {:.1f} M parameters", artifact.path.string(),
                                 fmt::join(results.at("keep").get<std::vector<int64_t>>(), " "),
                                 results.at("source_layers").get<int64_t>(),
                                 static_cast<double>(results.at("parameters").get<int64_t>()) / 1e6);
  if (!influence.empty()) text += fmt::format("\n  influence in the whole model: {:.3f}", fmt::join(influence, " "));
  return text;
}

}  // namespace

void add_prune_command(CLI::App& app, GlobalOptions& global) {
  auto [command, options] = new_command<PruneOptions>(app, "prune", "Make a student by dropping decoder layers");
  command->add_option("--model", options->inputs.model, "Hugging Face folder or GGUF file")->required();
  command->add_option("--out", options->out, "Hugging Face folder to write")->required();
  // --dtype is the child's: the calibration pass needs no flag of its own.
  add_config_flags(*command, options->config);
  command->get_option("--keep")->delimiter(',');
  command->callback([options = options, &global] {
    check_config(options->config, "prune");
    options->inputs.device = global.device;
    const auto artifact =
        run_stage(options->out, prune_key(options->inputs, options->config, global.seed), global.if_exists(),
                  [&](ArtifactWriter& out) { run_prune_stage(options->inputs, options->config, out); });
    print_result(global, artifact.manifest, describe(artifact));
  });
}

}  // namespace potstill
