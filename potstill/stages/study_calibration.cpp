#include "potstill/stages/study_calibration.h"

#include <fmt/format.h>

#include <algorithm>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"
#include "potstill/base/rng.h"
#include "potstill/distill/records.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

std::vector<nlohmann::json> draw_pairs(std::vector<nlohmann::json> pairs, int64_t count, uint64_t draw) {
  Rng rng(draw, "study/calibration/pairs");
  rng.shuffle(pairs);
  pairs.resize(std::min(pairs.size(), static_cast<size_t>(count)));
  return pairs;
}

size_t characters_of(const nlohmann::json& pair) {
  size_t length = 0;
  for (const char* field : {"instruction", "input", "output"}) length += pair.value(field, "").size();
  return length;
}

std::vector<nlohmann::json> draw_text(const fs::path& path, const std::vector<nlohmann::json>& pairs, uint64_t draw) {
  const std::string text = read_file(path);
  Rng rng(draw, "study/calibration/text");
  std::vector<nlohmann::json> pieces;
  for (const auto& pair : pairs) {
    const size_t length = std::max<size_t>(64, characters_of(pair));
    if (text.size() < 4 * length) {
      throw Error(ErrorKind::kInput, path.string(),
                  fmt::format("is too short a text to draw {} characters from", length), "give some hundred kilobytes");
    }
    const size_t from = rng.below(text.size() - 3 * length);
    const size_t begin = text.find_first_of(" \n", from), end = text.find_first_of(" \n", from + length);
    pieces.push_back({{"text", text.substr(begin + 1, end - begin - 1)}});
  }
  return pieces;
}

}  // namespace

std::vector<nlohmann::json> training_pairs(const fs::path& pairs, const DistillDataConfig& data, uint64_t seed) {
  std::vector<nlohmann::json> all;
  bool named = false;
  for (const auto& record : read_jsonl(pairs)) {
    all.push_back(record.value);
    named = named || record.value.value("split", "") == "heldout";
  }
  std::vector<bool> held_out(all.size(), false);
  if (!named) {
    for (const int64_t i : choose_held_out(static_cast<int64_t>(all.size()), data.held_out, seed)) {
      held_out[static_cast<size_t>(i)] = true;
    }
  }
  std::vector<nlohmann::json> kept;
  for (size_t i = 0; i < all.size(); ++i) {
    if (!held_out[i] && all[i].value("split", "") != "heldout") kept.push_back(std::move(all[i]));
  }
  return kept;
}

std::string study_calibration(const StudyText& what, const DistillDataConfig& data, uint64_t seed, uint64_t draw) {
  auto records = draw_pairs(training_pairs(what.pairs, data, seed), what.sequences, draw);
  if (what.source != "D_gen") {
    const auto text = draw_text(what.text, records, draw);
    const size_t first = what.source == "mixed" ? records.size() / 2 : 0;
    std::copy(text.begin() + static_cast<ptrdiff_t>(first), text.end(),
              records.begin() + static_cast<ptrdiff_t>(first));
  }
  std::string lines;
  for (const auto& record : records) lines += to_json_line(record) + "\n";
  return lines;
}

}  // namespace potstill
