#include <fmt/format.h>

#include "potstill/cli/command.h"
#include "potstill/stages/merge_stage.h"

namespace potstill {
namespace {

struct MergeCommandOptions {
  MergeInputs inputs;
  std::filesystem::path out;
};

std::string describe(const Artifact& artifact) {
  const auto& results = artifact.results();
  const auto& proof = results.at("proof");
  return fmt::format(
      "{}\n  {} weights merged into {}; rounding lost {:.2g} % of the update\n  proof on {} tokens: logits of the "
      "folder "
      "are within {:.2g} of base + adapter (which itself moves them by {:.2g})",
      artifact.path.string(), results.at("merged_weights").get<int64_t>(), results.at("dtype").get<std::string>(),
      100 * results.at("rounding_loss").get<double>(), proof.at("probe_tokens").get<int64_t>(),
      proof.at("max_logit_difference").get<double>(), proof.at("rms_adapter_effect").get<double>());
}

}  // namespace

void add_merge_command(CLI::App& app, GlobalOptions& global) {
  auto [command, options] = new_command<MergeCommandOptions>(app, "merge", "Merge a LoRA adapter into its base model");
  command->add_option("--model", options->inputs.model, "base: Hugging Face folder or GGUF file")->required();
  command->add_option("--adapter", options->inputs.adapter, "PEFT folder")->required();
  command->add_option("--out", options->out, "Hugging Face folder to write")->required();
  // The weights' dtype, not the arithmetic's: this --dtype stands before the global one.
  command->add_option("--dtype", options->inputs.dtype, "of the merged weights: auto (the base's own)|fp32|bf16|fp16")
      ->check(CLI::IsMember({"auto", "fp32", "bf16", "fp16"}))
      ->capture_default_str();
  command->callback([options = options, &global] {
    const auto artifact = run_stage(options->out, merge_key(options->inputs), global.if_exists(),
                                    [&](ArtifactWriter& out) { run_merge_stage(options->inputs, out); });
    print_result(global, artifact.manifest, describe(artifact));
  });
}

}  // namespace potstill
