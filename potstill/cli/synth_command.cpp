#include <fmt/format.h>

#include <string>

#include "potstill/base/error.h"
#include "potstill/cli/command.h"
#include "potstill/recipe/task_file.h"
#include "potstill/stages/audit.h"
#include "potstill/stages/synth_stage.h"

namespace potstill {
namespace {

struct SynthOptions {
  SynthInputs inputs;
  std::filesystem::path out;
  SynthConfig config;
  int64_t audit = 0;
};

std::string describe(const Artifact& artifact) {
  const auto& results = artifact.results();
  return fmt::format("{}\n  {} pairs ({} to train on, {} held out) out of {} candidates; {} tokens generated",
                     (artifact.path / "D_gen.jsonl").string(), results.at("pairs").get<int64_t>(),
                     results.at("train_pairs").get<int64_t>(), results.at("heldout_pairs").get<int64_t>(),
                     results.at("yield").at("candidates").get<int64_t>(),
                     results.at("generated_tokens").get<int64_t>());
}

// `--audit 20 --out D_gen` alone reads what is there.
bool only_audits(const SynthOptions& options) {
  return options.audit > 0 && options.inputs.task.empty() && options.inputs.teacher.empty();
}

Artifact make_pairs(SynthOptions& options, const GlobalOptions& global) {
  for (const auto& [value, flag] :
       {std::pair(&options.inputs.task, "--task"), std::pair(&options.inputs.teacher, "--teacher")}) {
    if (value->empty()) throw Error(ErrorKind::kUsage, flag, "is required", "potstill synth --help");
  }
  check_config(options.config, "synth");
  options.inputs.task = find_task(options.inputs.task, {}, options.config);
  options.inputs.dtype = global.dtype;
  options.inputs.device = global.device;
  return run_stage(
      options.out, synth_key(options.inputs, options.config, global.seed), global.if_exists(),
      [&](ArtifactWriter& out) { run_synth_stage(options.inputs, options.config, synth_journal(options.out), out); });
}

}  // namespace

void add_synth_command(CLI::App& app, GlobalOptions& global) {
  auto [command, options] =
      new_command<SynthOptions>(app, "synth", "Let a teacher write a task's question/answer pairs");
  command->add_option("--task", options->inputs.task,
                      "task file, or the name of one: arc_easy, commonsense_qa, hellaswag, mmlu, mmlu_<subject>,\n"
                      "openbookqa, piqa, social_iqa, winogrande, open_qa, classification, extraction, summarization,\n"
                      "documents, documents_small, elementary_science");
  command->add_option(
      "--teacher", options->inputs.teacher,
      "Hugging Face folder, GGUF file, or an OpenAI-compatible endpoint: https://host/v1 with --teacher-model;\n"
      "its key comes from POTSTILL_TEACHER_API_KEY (a critic's from POTSTILL_CRITIC_API_KEY)");
  command->add_option("--out", options->out, "folder for D_gen.jsonl, messages.jsonl, rejected.jsonl and raw.jsonl")
      ->required();
  command->add_option(
      "--audit", options->audit,
      "print so many pairs at random with all of their scores; with --out alone, of pairs that are there");
  add_config_flags(*command, options->config);
  command->callback([options = options, &global] {
    const Artifact artifact = only_audits(*options) ? Artifact::open(options->out) : make_pairs(*options, global);
    std::string text = describe(artifact);
    if (options->audit > 0) text = audit_text(options->out, options->audit, global.seed) + text;
    print_result(global, artifact.manifest, text);
  });
}

}  // namespace potstill
