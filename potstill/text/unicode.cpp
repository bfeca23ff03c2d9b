#include "potstill/text/unicode.h"

#include <utf8proc.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <unordered_map>

#include "potstill/base/check.h"

namespace potstill {
namespace {

constexpr uint32_t kClassRuns[] = {
#include "potstill/text/unicode_classes.inc"
};

bool is_continuation(unsigned char byte) { return (byte & 0xC0) == 0x80; }

// The last code point of a text that is not empty; kInvalidCodePoint when it does not end in one.
DecodedCodePoint decode_last(std::string_view text) {
  size_t start = text.size() - 1;
  while (start > 0 && text.size() - start < 4 && is_continuation(static_cast<unsigned char>(text[start]))) --start;
  const DecodedCodePoint last = decode_utf8(text.data() + start, text.data() + text.size());
  if (last.code_point == kInvalidCodePoint || start + last.length != text.size()) return {kInvalidCodePoint, 1};
  return last;
}

bool has_class(uint32_t code_point, CodePointClass wanted) {
  return code_point != kInvalidCodePoint && (CodePointClasses::get()[code_point] & wanted) != 0;
}

void append_nfc_run(std::string_view run, std::string& out) {
  utf8proc_uint8_t* composed = nullptr;
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  const utf8proc_ssize_t length = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(run.data()),
                                               static_cast<utf8proc_ssize_t>(run.size()), &composed, options);
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(composed, &std::free);
  POTSTILL_CHECK(length >= 0);  // a run is valid UTF-8
  out.append(reinterpret_cast<const char*>(composed), static_cast<size_t>(length));
}

}  // namespace

const CodePointClasses& CodePointClasses::get() {
  static const CodePointClasses classes;
  return classes;
}

CodePointClasses::CodePointClasses() {
  constexpr uint32_t kBlock = 1u << kBlockBits;
  std::unordered_map<std::string, uint16_t> known;
  const uint32_t* run = std::begin(kClassRuns);
  const uint32_t* const last = std::end(kClassRuns) - 1;
  std::string block(kBlock, '\0');
  std::array<int, 256> uniform;
  uniform.fill(-1);
  const auto add = [&](const std::string& bytes) {
    const auto number = static_cast<uint16_t>(blocks_.size() >> kBlockBits);
    blocks_.insert(blocks_.end(), bytes.begin(), bytes.end());
    return number;
  };
  for (uint32_t i = 0; i < index_.size(); ++i) {
    const uint32_t start = i << kBlockBits;
    while (run != last && run[1] >> 8 <= start) ++run;
    const auto bits = static_cast<uint8_t>(*run);
    if (run == last || run[1] >> 8 >= start + kBlock) {  // most blocks are one class throughout
      if (uniform[bits] < 0) uniform[bits] = add(std::string(kBlock, static_cast<char>(bits)));
      index_[i] = static_cast<uint16_t>(uniform[bits]);
      continue;
    }
    for (uint32_t c = 0; c < kBlock; ++c) {
      while (run != last && run[1] >> 8 <= start + c) ++run;
      block[c] = static_cast<char>(static_cast<uint8_t>(*run));
    }
    const auto [found, is_new] = known.try_emplace(block, uint16_t{0});
    if (is_new) found->second = add(block);
    index_[i] = found->second;
  }
}

// Table 3-7 of the Unicode Standard: which second byte may follow which first.
DecodedCodePoint decode_utf8(const char* begin, const char* end) {
  const auto byte = [&](int i) { return static_cast<unsigned char>(begin[i]); };
  const auto left = end - begin;
  const uint32_t first = byte(0);
  if (first < 0x80) return {first, 1};
  if (first < 0xC2 || first > 0xF4) return {kInvalidCodePoint, 1};
  uint32_t low = 0x80, high = 0xBF, length = 4;
  if (first < 0xE0) {
    length = 2;
  } else if (first < 0xF0) {
    length = 3;
    if (first == 0xE0) low = 0xA0;   // overlong below
    if (first == 0xED) high = 0x9F;  // surrogates above
  } else {
    if (first == 0xF0) low = 0x90;
    if (first == 0xF4) high = 0x8F;
  }
  if (left < 2 || byte(1) < low || byte(1) > high) return {kInvalidCodePoint, 1};
  if (length == 2) return {(first & 0x1F) << 6 | (byte(1) & 0x3Fu), 2};
  if (left < 3 || !is_continuation(byte(2))) return {kInvalidCodePoint, 2};
  if (length == 3) return {(first & 0x0F) << 12 | (byte(1) & 0x3Fu) << 6 | (byte(2) & 0x3Fu), 3};
  if (left < 4 || !is_continuation(byte(3))) return {kInvalidCodePoint, 3};
  return {(first & 0x07) << 18 | (byte(1) & 0x3Fu) << 12 | (byte(2) & 0x3Fu) << 6 | (byte(3) & 0x3Fu), 4};
}

void append_utf8(uint32_t code_point, std::string& out) {
  const auto tail = [&](int shift) { out += static_cast<char>(0x80 | (code_point >> shift & 0x3F)); };
  if (code_point < 0x80) {
    out += static_cast<char>(code_point);
  } else if (code_point < 0x800) {
    out += static_cast<char>(0xC0 | code_point >> 6);
    tail(0);
  } else if (code_point < 0x10000) {
    out += static_cast<char>(0xE0 | code_point >> 12);
    tail(6), tail(0);
  } else {
    out += static_cast<char>(0xF0 | code_point >> 18);
    tail(12), tail(6), tail(0);
  }
}

namespace {

// The first invalid byte, or the end. Eight ASCII characters at a time where there are such.
const char* skip_valid(const char* p, const char* end) {
  while (p < end) {
    uint64_t eight;
    while (end - p >= 8 && (std::memcpy(&eight, p, 8), (eight & 0x8080808080808080) == 0)) p += 8;
    if (p == end) break;
    const DecodedCodePoint next = decode_utf8(p, end);
    if (next.code_point == kInvalidCodePoint) break;
    p += next.length;
  }
  return p;
}

}  // namespace

std::string to_valid_utf8(std::string bytes) {
  const char *p = bytes.data(), *const end = p + bytes.size();
  const char* invalid = skip_valid(p, end);
  if (invalid == end) return bytes;
  std::string out;
  out.reserve(bytes.size());
  for (; invalid < end; invalid = skip_valid(p, end)) {
    out.append(p, invalid);
    out += "\xEF\xBF\xBD";
    p = invalid + decode_utf8(invalid, end).length;
  }
  out.append(p, end);
  return out;
}

size_t complete_utf8_prefix(std::string_view bytes) {
  for (size_t back = 1; back <= 3 && back <= bytes.size(); ++back) {
    const size_t start = bytes.size() - back;
    const auto byte = static_cast<unsigned char>(bytes[start]);
    if (is_continuation(byte)) continue;
    const size_t wanted = byte < 0xC2 || byte > 0xF4 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
    const DecodedCodePoint torn = decode_utf8(bytes.data() + start, bytes.data() + bytes.size());
    const bool may_go_on = torn.code_point == kInvalidCodePoint && torn.length == back && back < wanted;
    return may_go_on && (back > 1 || wanted > 1) ? start : bytes.size();
  }
  return bytes.size();
}

bool is_nfc_at_sight(std::string_view text) {
  const auto& classes = CodePointClasses::get();
  for (const char *p = text.data(), *end = p + text.size(); p < end;) {
    if (static_cast<unsigned char>(*p) < 0xCC) {  // below U+0300 all is NFC: 0xCC is the first byte of U+0300
      ++p;
      continue;
    }
    const DecodedCodePoint next = decode_utf8(p, end);
    if (next.code_point != kInvalidCodePoint && !(classes[next.code_point] & kNfcYes)) return false;
    p += next.length;
  }
  return true;
}

// Inert code points and invalid bytes cut the text into runs that normalise on their own. Among the inert are all code
// points that the package's normaliser does not know, so utf8proc, which knows more of them, never sees one.
std::string to_nfc(std::string_view text) {
  const auto& classes = CodePointClasses::get();
  std::string out;
  out.reserve(text.size());
  const char *p = text.data(), *const end = p + text.size(), *run = p;
  bool settled = true;  // [run, p) is NFC as it stands
  const auto flush = [&](const char* until) {
    const std::string_view view(run, static_cast<size_t>(until - run));
    if (settled) {
      out += view;
    } else {
      append_nfc_run(view, out);
    }
    run = until;
    settled = true;
  };
  while (p < end) {
    const DecodedCodePoint next = decode_utf8(p, end);
    const uint8_t bits = next.code_point == kInvalidCodePoint ? uint8_t{kNfcInert} : classes[next.code_point];
    if (bits & kNfcInert) {
      flush(p);
      out.append(p, next.length);
      run = p + next.length;
    } else if (!(bits & kNfcYes)) {
      settled = false;
    }
    p += next.length;
  }
  flush(end);
  return out;
}

size_t leading_space(std::string_view text) {
  const char *p = text.data(), *const end = p + text.size();
  while (p < end) {
    const DecodedCodePoint next = decode_utf8(p, end);
    if (!has_class(next.code_point, kSpace)) break;
    p += next.length;
  }
  return static_cast<size_t>(p - text.data());
}

size_t trailing_space(std::string_view text) {
  std::string_view rest = text;
  while (!rest.empty()) {
    const DecodedCodePoint last = decode_last(rest);
    if (!has_class(last.code_point, kSpace)) break;
    rest.remove_suffix(last.length);
  }
  return text.size() - rest.size();
}

bool starts_with_word(std::string_view text) {
  return !text.empty() && has_class(decode_utf8(text.data(), text.data() + text.size()).code_point, kWord);
}

bool ends_with_word(std::string_view text) { return !text.empty() && has_class(decode_last(text).code_point, kWord); }

}  // namespace potstill
