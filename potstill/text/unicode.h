// UTF-8, NFC and the character classes by which pre-tokenizers cut text.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace potstill {

// What the `tokenizers` package takes a code point for (make_unicode_classes.py). Its regular expressions, Rust's
// standard library and its normaliser follow different versions of Unicode, hence two kinds of number.
enum CodePointClass : uint8_t {
  kLetter = 1,     // \p{L} of its regular expressions
  kNumber = 2,     // \p{N} of its regular expressions
  kSpace = 4,      // \s, the same set everywhere
  kNumeric = 8,    // char::is_numeric, by which Digits splits
  kWord = 16,      // \w, by which AddedToken.single_word looks at its neighbours
  kNfcInert = 32,  // neither changes nor moves nor composes under NFC, whatever stands beside it
  kNfcYes = 64,    // a starter that is its own NFC and never composes with what stands before it
};

class CodePointClasses {
 public:
  static const CodePointClasses& get();
  uint8_t operator[](uint32_t code_point) const {  // code_point < 0x110000
    return blocks_[size_t{index_[code_point >> kBlockBits]} << kBlockBits | (code_point & ((1u << kBlockBits) - 1))];
  }

 private:
  static constexpr int kBlockBits = 7;
  CodePointClasses();
  std::array<uint16_t, (0x110000 >> kBlockBits)> index_{};
  std::vector<uint8_t> blocks_;  // blocks of 128 that occur, each once
};

inline constexpr uint32_t kInvalidCodePoint = 0xFFFFFFFF;

struct DecodedCodePoint {
  uint32_t code_point;  // kInvalidCodePoint where the bytes are not UTF-8
  uint32_t
      length;  // bytes; for an invalid sequence the bytes that Unicode's "maximal subpart" rule replaces by one U+FFFD
};
// The code point at the front of [begin, end), which is not empty. Overlong forms and surrogates are invalid.
DecodedCodePoint decode_utf8(const char* begin, const char* end);
void append_utf8(uint32_t code_point, std::string& out);

// Each maximal invalid subpart becomes U+FFFD, as Rust's String::from_utf8_lossy does.
std::string to_valid_utf8(std::string bytes);
// Length of the longest prefix that does not end inside a sequence which more bytes could still make valid.
size_t complete_utf8_prefix(std::string_view bytes);

// NFC as the `tokenizers` package's normaliser has it: code points younger than its tables (Unicode 9) stay as they
// are. Invalid bytes are kept.
std::string to_nfc(std::string_view text);
bool is_nfc_at_sight(std::string_view text);  // true only if to_nfc(text) == text

// Bytes of the white space that `text` begins (ends) with.
size_t leading_space(std::string_view text);
size_t trailing_space(std::string_view text);
bool starts_with_word(std::string_view text);
bool ends_with_word(std::string_view text);

}  // namespace potstill
