#include <fmt/format.h>

#include "potstill/cli/command.h"
#include "potstill/eval/diagnose.h"

namespace potstill {
namespace {

struct DiagnoseOptions {
  std::filesystem::path run;
};

void run(const DiagnoseOptions& options, const GlobalOptions& global) {
  const auto diagnoses = diagnose_run(options.run);
  std::string text;
  int problems = 0, unknown = 0;
  for (const auto& d : diagnoses) {
    const char* mark = d.finding == Finding::kFine      ? "fine     "
                       : d.finding == Finding::kProblem ? "PROBLEM  "
                                                        : "unknown  ";
    text += fmt::format("{}{}\n           {}\n", mark, d.check, d.seen);
    if (!d.advice.empty()) text += fmt::format("           do: {}\n", d.advice);
    problems += d.finding == Finding::kProblem ? 1 : 0;
    unknown += d.finding == Finding::kNotKnown ? 1 : 0;
  }
  text +=
      fmt::format("{} checks: {} with a problem, {} that the run cannot answer", diagnoses.size(), problems, unknown);
  print_result(global,
               {{"run", options.run.string()}, {"problems", problems}, {"checks", diagnosis_to_json(diagnoses)}}, text);
}

}  // namespace

void add_diagnose_command(CLI::App& app, GlobalOptions& global) {
  auto [command, options] =
      new_command<DiagnoseOptions>(app, "diagnose", "Look at a run for what is known to go wrong, and say what to do");
  command->add_option("run", options->run, "folder of the run: runs/<name>")->required();
  command->callback([options = options, &global] { run(*options, global); });
}

}  // namespace potstill
