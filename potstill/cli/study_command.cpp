#include <fmt/format.h>
#include <fmt/ranges.h>

#include "potstill/cli/command.h"
#include "potstill/stages/study.h"

namespace potstill {
namespace {

std::string command_line(const StudyOptions& options) {
  std::string text =
      fmt::format("potstill study {} {} --seeds {}", options.kind, options.recipe.string(), options.seeds);
  if (!options.folder.empty()) text += " --out " + options.folder.string();
  if (!options.text.empty()) text += " --text " + options.text.string();
  for (const auto& arm : options.arms) text += fmt::format(" --arm \"{}\"", arm);
  for (const auto& item : options.overrides) text += " --set " + item;
  return text;
}

}  // namespace

void add_study_command(CLI::App& app, GlobalOptions& global) {
  auto [command, options] = new_command<StudyOptions>(
      app, "study", "An experiment: a recipe's arms over several seeds, with one table, plots and a verdict");
  command->add_option("kind", options->kind, "what is compared")->required()->check(CLI::IsMember(study_kinds()));
  command->add_option("recipe", options->recipe, "recipe file (YAML) with [evaluate] tasks")->required();
  command->add_option("--seeds", options->seeds, "replicates of each arm: training and quantization under other seeds")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("--out", options->folder,
                      "folder of the recipe's studies, each in <folder>/<kind> (default: studies/<recipe's name>)");
  command->add_option("--set", options->overrides, "section.key=value in the recipe's place, for every arm")
      ->allow_extra_args(false);
  command->add_option("--arm", options->arms, "only this arm of the kind's, as often as needed")
      ->allow_extra_args(false);
  command->add_option("--text", options->text, "calibration: plain text that is not the task's");
  command->footer(
      "optimizer    AdamW, Muon and LoRA-Muon: accuracy before and after quantization, what each loses, the ratio\n"
      "calibration  random text, D_gen or both; 16 to 256 sequences\n"
      "switch       one optimizer for half an epoch, then another, against each alone\n"
      "tokenizer    a teacher of another vocabulary by ULD beside the same teacher aligned, and misaligned ids\n"
      "quantizer    Muon- and AdamW-tuned students under every method and group size\n"
      "ablation     S1, S1 + RTN, S1 + GPTQ, S' and S''\n\n"
      "What arms, seeds and studies of one recipe have in common is made once; a killed study goes on where it was.");
  command->callback([options = options, &app, &global] {
    if (app.count("--seed") > 0) options->overrides.push_back(fmt::format("seed={}", global.seed));
    if (app.count("--dtype") > 0) options->overrides.push_back("dtype=" + global.dtype);
    if (app.count("--device") > 0) options->overrides.push_back("device=" + global.device);
    options->command = command_line(*options);
    const StudyResult result = run_study(*options);
    print_result(global, study_to_json(result),
                 fmt::format("{}\n\n  {}", study_table(result), (result.folder / "study.html").string()));
  });
}

}  // namespace potstill
