#include <fmt/format.h>

#include <algorithm>

#include "potstill/cli/command.h"
#include "potstill/eval/diagnose.h"
#include "potstill/stages/calibration_coverage.h"

namespace potstill {
namespace {

struct DiagnoseOptions {
  std::filesystem::path run;
  std::string coverage = "auto";
};

constexpr int64_t kCoverageRows = 64;  // of each task

// Whether the run lost accuracy in quantization, so that its calibration is what to look at.
bool lost_in_quantization(const std::vector<Diagnosis>& diagnoses) {
  return std::ranges::any_of(diagnoses, [](const Diagnosis& d) {
    return d.finding == Finding::kProblem && d.check.starts_with("quantization");
  });
}

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
  nlohmann::ordered_json json = {
      {"run", options.run.string()}, {"problems", problems}, {"checks", diagnosis_to_json(diagnoses)}};
  if (options.coverage == "always" || (options.coverage == "auto" && lost_in_quantization(diagnoses))) {
    const auto coverage = measure_coverage(options.run, kCoverageRows, global.dtype, global.device);
    json["calibration_coverage"] = coverage_to_json(coverage);
    text += "\n" + describe(coverage);
  }
  print_result(global, json, text);
}

}  // namespace

void add_diagnose_command(CLI::App& app, GlobalOptions& global) {
  auto [command, options] =
      new_command<DiagnoseOptions>(app, "diagnose", "Look at a run for what is known to go wrong, and say what to do");
  command->add_option("run", options->run, "folder of the run: runs/<name>")->required();
  command
      ->add_option("--coverage", options->coverage,
                   "run the student to see how far the calibration text covers the evaluation's activations; auto = "
                   "when quantization lost accuracy")
      ->check(CLI::IsMember({"auto", "always", "never"}))
      ->capture_default_str();
  command->callback([options = options, &global] { run(*options, global); });
}

}  // namespace potstill
