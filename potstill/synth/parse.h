// What teachers write, read back: weak ones wrap, number, repeat and cut off.
#pragma once

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

struct Critique {
  std::map<std::string, double> scores;  // one for each criterion asked, in [1, 5]
  std::string reason;
};

// The last balanced {...} of the text with a number 1 to 5 (also "4" or "4/5") for each criterion. Anything missing, of
// another type or out of range gives nothing: a critique that cannot be read does not pass a pair.
std::optional<Critique> parse_critique(std::string_view text, std::span<const std::string> criteria);

}  // namespace potstill
