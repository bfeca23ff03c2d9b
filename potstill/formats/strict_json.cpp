#include "potstill/formats/strict_json.h"

#include <fmt/format.h>

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "potstill/base/error.h"

namespace potstill {
namespace {

template <class Json>
Json parse_strict(std::string_view text, std::string_view where, int max_depth, size_t max_keys) {
  using Event = typename Json::parse_event_t;
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  const auto watch = [&](int depth, Event event, Json& parsed) {
    if (depth > max_depth) {
      throw Error(ErrorKind::kFormat, where, fmt::format("JSON is nested deeper than {} levels", max_depth));
    }
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key && !keys.back().insert(parsed.template get<std::string>()).second) {
      throw Error(ErrorKind::kFormat, where, fmt::format("key '{}' stands twice", parsed.template get<std::string>()),
                  "readers disagree on which of the two counts; write the file again");
    }
    if (event == Event::key && keys.back().size() > max_keys) {
      throw Error(ErrorKind::kFormat, where, fmt::format("an object has more than {} keys", max_keys));
    }
    return true;
  };
  try {
    return Json::parse(text, watch);
  } catch (const nlohmann::json::exception& error) {
    throw Error(ErrorKind::kFormat, where, fmt::format("is not valid JSON: {}", error.what()),
                "the file is truncated or is not this format; fetch or export it again");
  }
}

}  // namespace

nlohmann::json parse_strict_json(std::string_view text, std::string_view where, int max_depth) {
  return parse_strict<nlohmann::json>(text, where, max_depth, SIZE_MAX);
}

nlohmann::ordered_json parse_strict_ordered_json(std::string_view text, std::string_view where, int max_depth) {
  // ordered_json looks keys up one by one: many in one object would take the square of their number.
  return parse_strict<nlohmann::ordered_json>(text, where, max_depth, 1024);
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
