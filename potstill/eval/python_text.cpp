#include "potstill/eval/python_text.h"

#include <utf8proc.h>

#include "potstill/text/unicode.h"

namespace potstill {
namespace {

bool is_python_space(uint32_t c) {
  return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

DecodedCodePoint decode_front(std::string_view text) { return decode_utf8(text.data(), text.data() + text.size()); }

}  // namespace

std::string_view strip(std::string_view text) {
  while (!text.empty()) {
    const auto front = decode_front(text);
    if (!is_python_space(front.code_point)) break;
    text.remove_prefix(front.length);
  }
  size_t end = 0;  // of the last character that is no space
  for (size_t i = 0; i < text.size();) {
    const auto c = decode_front(text.substr(i));
    i += c.length;
    if (!is_python_space(c.code_point)) end = i;
  }
  return text.substr(0, end);
}

std::string capitalize(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const auto c = decode_front(text.substr(i));
    if (c.code_point == kInvalidCodePoint) {
      out += text.substr(i, c.length);
    } else {
      const auto code_point = static_cast<utf8proc_int32_t>(c.code_point);
      append_utf8(static_cast<uint32_t>(i == 0 ? utf8proc_totitle(code_point) : utf8proc_tolower(code_point)), out);
    }
    i += c.length;
  }
  return out;
}

int64_t num_characters(std::string_view text) {
  int64_t count = 0;
  for (size_t i = 0; i < text.size(); ++count) i += decode_front(text.substr(i)).length;
  return count;
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  size_t begin = 0;
  for (size_t at = text.find(from); at != std::string_view::npos; at = text.find(from, begin)) {
    out += text.substr(begin, at - begin);
    out += to;
    begin = at + from.size();
  }
  out += text.substr(begin);
  return out;
}

}  // namespace potstill
