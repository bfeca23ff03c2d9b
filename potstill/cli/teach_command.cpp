#include <fmt/format.h>

#include "potstill/base/log.h"
#include "potstill/cli/command.h"
#include "potstill/stages/teach_stage.h"

namespace potstill {
namespace {

struct TeachOptions {
  TeachInputs inputs;
  std::filesystem::path out;
  TeachConfig config;
  DistillDataConfig data;
};

std::string describe(const Artifact& artifact) {
  const auto& results = artifact.results();
  if (!results.contains("storage_error")) {
    return fmt::format("{}\n  {} answer tokens of {} pairs; {}", artifact.path.string(),
                       results.at("answer_tokens").get<int64_t>(), results.at("pairs").get<int64_t>(),
                       results.at("knowledge").get<std::string>());
  }
  const auto& error = results.at("storage_error");
  return fmt::format(
      "{}\n  {} answer tokens of {} pairs, {} of hidden states\n  keeping them costs {:.2g} nats of KL a "
      "token (logits off by {:.2g} at most)",
      artifact.path.string(), results.at("answer_tokens").get<int64_t>(), results.at("pairs").get<int64_t>(),
      format_bytes(results.at("hidden_bytes").get<uint64_t>()), error.at("kl").get<double>(),
      error.at("max_logit").get<double>());
}

}  // namespace

void add_teach_command(CLI::App& app, GlobalOptions& global) {
  auto [command, options] =
      new_command<TeachOptions>(app, "teach", "Run a teacher over question/answer pairs once and keep what it knows");
  command
      ->add_option("--teacher", options->inputs.teacher,
                   "Hugging Face folder or GGUF file; or an OpenAI-compatible endpoint: https://host/v1 with\n"
                   "--teacher-model and --tokenizer, its key in POTSTILL_TEACHER_API_KEY")
      ->required();
  command->add_option("--data", options->inputs.data, "pairs: JSONL with Alpaca fields or messages")->required();
  command->add_option("--out", options->out, "knowledge cache to write")->required();
  add_config_flags(*command, options->config);
  command
      ->add_option("--max-sequence-length", options->data.max_sequence_length, "longer pairs are left out, and counted")
      ->capture_default_str();
  command->callback([options = options, &global] {
    check_config(options->config, "teach");
    check_config(options->data, "teach");
    options->inputs.dtype = global.dtype;
    options->inputs.device = global.device;
    const auto artifact = run_stage(
        options->out, teach_key(options->inputs, options->config, options->data, global.seed), global.if_exists(),
        [&](ArtifactWriter& out) { run_teach_stage(options->inputs, options->config, options->data, out); });
    print_result(global, artifact.manifest, describe(artifact));
  });
}

}  // namespace potstill
