#include <fmt/format.h>
#include <fmt/ranges.h>

#include "potstill/base/log.h"
#include "potstill/cli/command.h"
#include "potstill/stages/evaluate_stage.h"
#include "potstill/stages/pipeline.h"

namespace potstill {
namespace {

struct RunOptions {
  std::filesystem::path recipe, run_dir;
  std::vector<std::string> overrides;
  std::string from, until;
};

std::string command_line(const RunOptions& options) {
  std::string text = "potstill run " + options.recipe.string();
  if (!options.run_dir.empty()) text += " --run-dir " + options.run_dir.string();
  for (const auto& item : options.overrides) text += " --set " + item;
  return text;
}

// The table, the files and what to do next.
std::string describe(const PipelineResult& result) {
  std::string text;
  if (!result.evaluation.empty()) text += evaluation_table(result.evaluation.at("models")) + "\n";
  const auto add_file = [&](const char* name, const std::filesystem::path& path) {
    if (!path.empty())
      text += fmt::format("  {:<14} {}  ({})\n", name, path.string(), format_bytes(std::filesystem::file_size(path)));
  };
  if (std::filesystem::exists(result.run_dir / "synth" / "D_gen.jsonl"))
    add_file("pairs", result.run_dir / "synth" / "D_gen.jsonl");
  add_file("edge model", result.gguf);
  add_file("report", result.report);
  if (!result.gguf.empty()) {
    text += fmt::format("\nChat with it, on a program without LibTorch:\n  {} chat {}",
                        (std::filesystem::read_symlink("/proc/self/exe").parent_path() / "potstill-edge")
                            .lexically_proximate(std::filesystem::current_path())
                            .string(),
                        result.gguf.string());
  }
  return text;
}

}  // namespace

void add_run_command(CLI::App& app, GlobalOptions& global) {
  auto [command, options] =
      new_command<RunOptions>(app, "run", "Run a recipe: every stage, from the teachers to the 4-bit file");
  command->add_option("recipe", options->recipe, "recipe file (YAML); recipes/quickstart.yaml is an example")
      ->required();
  command->add_option("--run-dir", options->run_dir, "folder of the run (default: runs/<name>)");
  command->add_option("--set", options->overrides, "section.key=value in the recipe's place, as often as needed")
      ->allow_extra_args(false);
  command->add_option("--from", options->from,
                      "make this stage and every later one again; the earlier ones must be there");
  command->add_option("--until", options->until, "stop after this stage");
  command->footer(fmt::format("Stages: {}", fmt::join(pipeline_stages(), ", ")));
  command->callback([options = options, &app, &global] {
    // The recipe says these unless the command line does.
    std::vector<std::string> overrides = options->overrides;
    if (app.count("--seed") > 0) overrides.push_back(fmt::format("seed={}", global.seed));
    if (app.count("--dtype") > 0) overrides.push_back("dtype=" + global.dtype);
    if (app.count("--device") > 0) overrides.push_back("device=" + global.device);
    const Recipe recipe = load_recipe(options->recipe, overrides);
    const PipelineResult result = run_pipeline(recipe, {.run_dir = options->run_dir,
                                                        .from = options->from,
                                                        .until = options->until,
                                                        .command = command_line(*options)});
    print_result(global,
                 {{"run_dir", result.run_dir.string()},
                  {"gguf", result.gguf.string()},
                  {"report", result.report.string()},
                  {"evaluation", result.evaluation}},
                 describe(result));
  });
}

}  // namespace potstill
