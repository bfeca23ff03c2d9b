#include <fmt/format.h>

#include <string>

#include "potstill/cli/command.h"
#include "potstill/recipe/task_file.h"
#include "potstill/stages/synth_stage.h"

namespace potstill {
namespace {

struct SynthOptions {
  SynthInputs inputs;
  std::filesystem::path out;
  SynthConfig config;
};

std::string describe(const Artifact& artifact) {
  const auto& results = artifact.results();
  return fmt::format("{}\n  {} pairs ({} to train on, {} held out) out of {} candidates; {} tokens generated",
                     (artifact.path / "D_gen.jsonl").string(), results.at("pairs").get<int64_t>(),
                     results.at("train_pairs").get<int64_t>(), results.at("heldout_pairs").get<int64_t>(),
                     results.at("yield").at("candidates").get<int64_t>(),
                     results.at("generated_tokens").get<int64_t>());
}

}  // namespace

void add_synth_command(CLI::App& app, GlobalOptions& global) {
  auto [command, options] =
      new_command<SynthOptions>(app, "synth", "Let a teacher write a task's question/answer pairs");
  command->add_option("--task", options->inputs.task, "task file, or the name of one in recipes/tasks")->required();
  command
      ->add_option(
          "--teacher", options->inputs.teacher,
          "Hugging Face folder, GGUF file, or an OpenAI-compatible endpoint: https://host/v1 with --teacher-model;\n"
          "its key comes from POTSTILL_TEACHER_API_KEY")
      ->required();
  command->add_option("--out", options->out, "folder for D_gen.jsonl, rejected.jsonl and raw.jsonl")->required();
  add_config_flags(*command, options->config);
  command->callback([options = options, &global] {
    check_config(options->config, "synth");
    options->inputs.task = find_task(options->inputs.task);
    options->inputs.dtype = global.dtype;
    options->inputs.device = global.device;
    const auto artifact =
        run_stage(options->out, synth_key(options->inputs, options->config, global.seed), global.if_exists(),
                  [&](ArtifactWriter& out) {
                    run_synth_stage(options->inputs, options->config, synth_journal(options->out), out);
                  });
    print_result(global, artifact.manifest, describe(artifact));
  });
}

}  // namespace potstill
