// Calibration text as token sequences: what a quantized model is fitted to.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "potstill/lm/model_package.h"

namespace potstill {

struct CalibrationSet {
  std::vector<std::vector<TokenId>> sequences;
  nlohmann::ordered_json
      summary;  // source, form, sequences, tokens, distinct tokens, lengths, truncated: for the manifest

  int64_t num_tokens() const;
};

// A .jsonl file: one record, one sequence, cut at sequence_length: Alpaca fields or `messages` in the model's own chat
// template (BOS once), or `text` as it stands; records of the split "heldout" are left out. Any other file is plain
// text, cut into windows of sequence_length tokens that do not overlap. `count` of them, drawn by the seed; where there
// are fewer, all, with a warning. Throws Error(kIo | kFormat | kInput): unreadable, a record without text (file and
// line), nothing to use.
CalibrationSet load_calibration(const std::filesystem::path& path, const ModelPackage& model, int64_t count,
                                int64_t sequence_length, uint64_t seed);

}  // namespace potstill
