#include <fmt/format.h>

#include "potstill/cli/command.h"
#include "potstill/stages/report_stage.h"

namespace potstill {
namespace {

struct ReportOptions {
  std::filesystem::path run_dir, out;
};

}  // namespace

void add_report_command(CLI::App& app, GlobalOptions& global) {
  auto [command, options] = new_command<ReportOptions>(app, "report", "One HTML file of everything that a run left");
  command->add_option("run-dir", options->run_dir, "folder of the run")->required();
  command->add_option("--out", options->out, "folder for report.html (default: <run-dir>/report)");
  command->callback([options = options, &global] {
    const std::filesystem::path out = options->out.empty() ? options->run_dir / "report" : options->out;
    const std::filesystem::path run_dir = std::filesystem::weakly_canonical(options->run_dir);
    ArtifactWriter writer(out, {.stage = "report", .config = {{"run_dir", run_dir.string()}}, .inputs = {}, .seed = 0});
    run_report_stage({.name = run_dir.filename().string(), .description = "", .command = "", .run_dir = run_dir},
                     writer);
    writer.commit();
    print_result(global, {{"report", (out / "report.html").string()}}, (out / "report.html").string());
  });
}

}  // namespace potstill
