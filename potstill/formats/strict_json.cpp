#include "potstill/formats/strict_json.h"

#include <fmt/format.h>

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "potstill/base/error.h"

namespace potstill {

nlohmann::json parse_strict_json(std::string_view text, std::string_view where, int max_depth) {
  using Event = nlohmann::json::parse_event_t;
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  const auto watch = [&](int depth, Event event, nlohmann::json& parsed) {
    if (depth > max_depth) {
      throw Error(ErrorKind::kFormat, where, fmt::format("JSON is nested deeper than {} levels", max_depth));
    }
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key && !keys.back().insert(parsed.get<std::string>()).second) {
      throw Error(ErrorKind::kFormat, where, fmt::format("key '{}' stands twice", parsed.get<std::string>()),
                  "readers disagree on which of the two counts; write the file again");
    }
    return true;
  };
  try {
    return nlohmann::json::parse(text, watch);
  } catch (const nlohmann::json::exception& error) {
    throw Error(ErrorKind::kFormat, where, fmt::format("is not valid JSON: {}", error.what()),
                "the file is truncated or is not this format; fetch or export it again");
  }
}

bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<uint8_t>(text[i++]);
    if (lead < 0x80) continue;
    const int more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
    if (lead < 0xc2 || lead > 0xf4) return false;  // continuation first, overlong two bytes, past U+10FFFF
    uint32_t code_point = lead & (0x3fu >> more);
    for (int k = 0; k < more; ++k) {
      if (i == text.size() || (static_cast<uint8_t>(text[i]) & 0xc0) != 0x80) return false;
      code_point = (code_point << 6) | (static_cast<uint8_t>(text[i++]) & 0x3f);
    }
    const bool overlong = (more == 2 && code_point < 0x800) || (more == 3 && code_point < 0x10000);
    if (overlong || code_point > 0x10ffff || (code_point >= 0xd800 && code_point <= 0xdfff)) return false;
  }
  return true;
}

}  // namespace potstill
