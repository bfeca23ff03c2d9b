// Calibration text of the study `calibration`: pairs of the task, text that is not the task's, or half of each.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "potstill/distill/distill_config.h"

namespace potstill {

struct StudyText {
  std::string source;           // "random", "D_gen" or "mixed"
  int64_t sequences = 0;        // records, all of the pairs where there are fewer
  std::filesystem::path pairs;  // of the task
  std::filesystem::path text;   // plain text that is not the task's
};

// Pairs that training sees, in the file's order: those held out stay out, named by the file or chosen by data and seed.
std::vector<nlohmann::json> training_pairs(const std::filesystem::path& pairs, const DistillDataConfig& data,
                                           uint64_t seed);

// JSON lines. Pieces of the text are as long as the pairs in whose place they stand: what differs between sets is what
// they are about, not how much of it there is. seed: of the held-out pairs; draw: of the sample.
std::string study_calibration(const StudyText& what, const DistillDataConfig& data, uint64_t seed, uint64_t draw);

}  // namespace potstill
