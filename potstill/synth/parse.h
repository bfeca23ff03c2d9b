// What teachers write, read back: weak ones wrap, number, repeat and cut off.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace potstill {

// Without leading labels ("Question:", "A:", "1.", "-"), surrounding quotes, markdown emphasis and doubled spaces.
std::string clean_answer(std::string_view text);

// The items of a numbered or bulleted list, or of plain lines; cleaned, without duplicates (case ignored), at most
// `max_words` words each. The last item of a truncated list is dropped: it may be cut.
std::vector<std::string> parse_list(std::string_view text, bool truncated, size_t max_words);

// Several options in one line, parted by ';', or one on a line, numbered or not. Like parse_list, but an option may be
// of any length and keeps nothing of a last one that was cut.
std::vector<std::string> parse_options(std::string_view text, bool truncated);

// The parts of an item written as JSON: texts and lists of texts by key, of those that `keys` names.
struct ItemParts {
  std::map<std::string, std::string> texts;
  std::map<std::string, std::vector<std::string>> lists;
  bool repaired = false;  // it was no whole JSON object: each part was read for itself
};

// The last whole object where there is one; else every part whose own text is whole, out of an object that was cut off,
// lacks commas or quotes of keys, or stands in prose. A part that cannot be read is left out.
ItemParts parse_item(std::string_view text, std::span<const std::string> keys);

// The letter of an option ("B", "(b)", "B. a star", "The answer is B."), as its place from 0; or the option's whole
// text. Nothing when it names none, or more than one.
std::optional<int64_t> parse_choice(std::string_view text, std::span<const std::string> options);

struct Critique {
  std::map<std::string, double> scores;  // one for each criterion asked, in [1, 5]
  std::string reason;
};

// The last balanced {...} of the text with a number 1 to 5 (also "4" or "4/5") for each criterion. Anything missing, of
// another type or out of range gives nothing: a critique that cannot be read does not pass a pair.
std::optional<Critique> parse_critique(std::string_view text, std::span<const std::string> criteria);

}  // namespace potstill
