// report: one HTML file of everything that a run left, which opens offline.
#pragma once

#include <filesystem>
#include <string>

#include "potstill/stages/artifact.h"

namespace potstill {

struct ReportInputs {
  std::string name;               // of the run
  std::string description;        // of the task
  std::string command;            // that repeats it
  std::filesystem::path run_dir;  // <run_dir>/<stage>/artifact.json
};

// Gathers the stages' manifests, pairs, trials, training log, layer errors and evaluation that are there (a stage that
// was not run is left out) and writes report.html.
void run_report_stage(const ReportInputs& inputs, ArtifactWriter& out);

}  // namespace potstill
