// The rows that no pair may match, out of a folder of benchmark rows.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "potstill/synth/contamination.h"

namespace potstill {

// The folder that synth's `decontaminate` means: "auto" is $POTSTILL_BENCHMARKS, else .deps/benchmarks, where there is
// one; "none" and an "auto" without rows give "". Throws Error(kIo) for a named folder that is none.
std::filesystem::path decontamination_folder(const std::string& decontaminate);

// All rows of <folder>/<task>/{test,validation}.jsonl, scored or held back alike; of a folder that is no known
// benchmark, of every .jsonl in it, with all of a row's texts. Training and few-shot rows are nobody's measure and are
// left out. Throws Error(kIo | kFormat | kInput) with file and line.
ContaminationIndex read_benchmark_items(const std::filesystem::path& folder);

}  // namespace potstill
