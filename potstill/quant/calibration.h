// Calibration text as token sequences: what a quantized model is fitted to.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "potstill/lm/model_package.h"

namespace potstill {

// A file of text and its share of the sequences.
struct CalibrationSource {
  std::filesystem::path path;
  double weight = 1.0;
  bool plain = false;  // pairs as [data] rendering: plain has them, question, a blank and answer, without a template
  std::vector<int64_t> left_out = {};  // lines of a .jsonl file that are kept to measure on, in order
};

// "pairs.jsonl", or a mixture "pairs.jsonl:0.5,wiki.txt:0.5" (no weight = 1; only their ratios count). A folder stands
// for the D_gen.jsonl in it. Throws Error(kUsage) for a weight that is not positive, a source named twice or none at
// all, Error(kIo) for one that does not exist. resolve: from a source's name to its path, as it stands without.
std::vector<CalibrationSource> parse_calibration(
    std::string_view text, const std::function<std::filesystem::path(const std::string& name)>& resolve = {});

struct CalibrationSet {
  std::vector<std::vector<TokenId>> sequences;
  // form, sequences, tokens, distinct tokens, lengths with their histogram, truncated; sources of a mixture: for the
  // manifest
  nlohmann::ordered_json summary;

  int64_t num_tokens() const;
};

// A .jsonl file: one record, one sequence, cut at sequence_length: Alpaca fields or `messages` in the model's own chat
// template (BOS once; of a plain source without one), or `text` as it stands; records of the split "heldout" and those
// on lines to be left out are not drawn. Any other file is plain text, cut into windows of sequence_length tokens that
// do not overlap. `count` of them, drawn by the seed; where there are fewer, all, with a warning. Throws Error(kIo |
// kFormat | kInput): unreadable, a record without text (file and line), nothing to use.
CalibrationSet load_calibration(const std::filesystem::path& path, const ModelPackage& model, int64_t count,
                                int64_t sequence_length, uint64_t seed);
// Of several sources, each with its share of `count`, in an order that the seed draws.
CalibrationSet load_calibration(std::span<const CalibrationSource> sources, const ModelPackage& model, int64_t count,
                                int64_t sequence_length, uint64_t seed);

}  // namespace potstill
