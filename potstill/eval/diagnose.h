// Looks at a finished (or stopped) run for the signs of what is known to go wrong, and says what to do.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace potstill {

enum class Finding { kFine, kProblem, kNotKnown };  // not known: the run has not what the check needs

struct Diagnosis {
  std::string check;  // "the adapter moves the student"
  Finding finding = Finding::kNotKnown;
  std::string seen;    // the numbers
  std::string advice;  // of a problem
};

// Reads the artifacts of runs/<name>; writes nothing. Throws Error(kIo | kFormat) when the folder holds no artifact or
// a broken one.
std::vector<Diagnosis> diagnose_run(const std::filesystem::path& run);

nlohmann::ordered_json diagnosis_to_json(const std::vector<Diagnosis>& diagnoses);

}  // namespace potstill
