// Where text is cut before BPE: each pattern of the `tokenizers` package as a scanner over code points.
//
//   gpt2    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//   smollm  the same between digits; every digit (char::is_numeric) stands alone, and ends what is before it
//   llama3  (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|
//           \s+(?!\S)|\s+
//   qwen2   as llama3, but \p{N} alone
//
// The patterns' alternatives are tried in order and backtrack in two places only: `\s+(?!\S)` gives the last blank
// back to the word after it, and `\s*[\r\n]+` ends after the last line break of a run of blanks.
#pragma once

#include "potstill/text/tokenizer.h"
#include "potstill/text/unicode.h"

namespace potstill {

template <PreTokenizer kind>
class PreTokenScanner {
 public:
  explicit PreTokenScanner(std::string_view text) : end_(text.data() + text.size()), classes_(CodePointClasses::get()) {
    for (uint32_t c = 0; c < 128; ++c) ascii_[c] = classes_[c];
  }

  // The end of the pre-token that begins at `p`, which is not the end of the text. Invalid bytes count as symbols.
  const char* next(const char* p) const {
    if constexpr (kind == PreTokenizer::kGpt2 || kind == PreTokenizer::kSmolLm) return next_gpt2(p);
    return next_llama3(p);
  }

 private:
  static constexpr uint8_t kAnyWordOrSpace = kLetter | kNumber | kSpace;

  struct Step {
    uint8_t classes;
    const char* after;
  };

  Step step(const char* p) const {
    const auto byte = static_cast<unsigned char>(*p);
    if (byte < 0x80) return {ascii_[byte], p + 1};
    const DecodedCodePoint next = decode_utf8(p, end_);
    if (next.code_point == kInvalidCodePoint) return {0, p + 1};
    return {classes_[next.code_point], p + next.length};
  }

  // Digits() cuts the text first: for what follows, a number is the end of the text.
  static bool ends_text(uint8_t classes) { return kind == PreTokenizer::kSmolLm && (classes & kNumeric); }
  static bool is_symbol(uint8_t classes) { return !(classes & kAnyWordOrSpace) && !ends_text(classes); }

  template <class Wanted>
  const char* skip(const char* p, Wanted wanted) const {
    while (p < end_) {
      const Step s = step(p);
      if (!wanted(s.classes)) break;
      p = s.after;
    }
    return p;
  }
  const char* skip_letters(const char* p) const {
    return skip(p, [](uint8_t c) { return (c & kLetter) != 0; });
  }

  // After the apostrophe at `p`: 's 't 'm 'd 're 've 'll; null if none of them. Ignoring case, U+017F is an s too.
  const char* contraction(const char* p) const {
    constexpr bool kAnyCase = kind == PreTokenizer::kLlama3 || kind == PreTokenizer::kQwen2;
    const auto letter = [&](const char* at) -> char {
      if (at >= end_) return 0;
      return kAnyCase && *at >= 'A' && *at <= 'Z' ? static_cast<char>(*at | 0x20) : *at;
    };
    const char first = letter(p + 1), second = first ? letter(p + 2) : '\0';
    if (first == 's' || first == 't' || first == 'm' || first == 'd') return p + 2;
    if ((first == 'r' || first == 'v') && second == 'e') return p + 3;
    if (first == 'l' && second == 'l') return p + 3;
    if (kAnyCase && first == '\xC5' && second == '\xBF') return p + 3;
    return nullptr;
  }

  // `\s+(?!\S)|\s+` for a run of blanks [p, run_end) whose last one begins at `last`.
  const char* blanks(const char* p, const char* last, const char* run_end, bool at_end) const {
    return at_end || last == p ? run_end : last;
  }

  const char* next_gpt2(const char* p) const {
    const Step first = step(p);
    if (ends_text(first.classes)) return first.after;
    if (*p == '\'') {
      if (const char* after = contraction(p)) return after;
    }
    Step body = first;
    if (*p == ' ' && first.after < end_) body = step(first.after);
    if (body.classes & kLetter) return skip_letters(body.after);
    if (kind == PreTokenizer::kGpt2 && (body.classes & kNumber)) {
      return skip(body.after, [](uint8_t c) { return (c & kNumber) != 0; });
    }
    if (is_symbol(body.classes)) return skip(body.after, is_symbol);
    const char *last = p, *q = first.after;
    bool at_end = true;
    while (q < end_) {
      const Step s = step(q);
      if (!(s.classes & kSpace)) {
        at_end = ends_text(s.classes);
        break;
      }
      last = q;
      q = s.after;
    }
    return blanks(p, last, q, at_end);
  }

  const char* next_llama3(const char* p) const {
    const Step first = step(p);
    if (first.classes & kLetter) return skip_letters(first.after);
    if (*p == '\'') {
      if (const char* after = contraction(p)) return after;
    }
    const bool has_second = first.after < end_;
    const Step second = has_second ? step(first.after) : Step{0, first.after};
    if (first.classes & kNumber) {
      const char* q = first.after;
      if constexpr (kind == PreTokenizer::kLlama3) {
        for (int i = 0; i < 2 && q < end_; ++i) {
          const Step s = step(q);
          if (!(s.classes & kNumber)) break;
          q = s.after;
        }
      }
      return q;
    }
    if (has_second && (second.classes & kLetter) && *p != '\r' && *p != '\n') return skip_letters(second.after);
    if (is_symbol(first.classes) || (*p == ' ' && has_second && is_symbol(second.classes))) {
      const char* q = skip(first.after, is_symbol);
      while (q < end_ && (*q == '\r' || *q == '\n')) ++q;
      return q;
    }
    const char *last = p, *q = p, *after_break = nullptr;
    bool at_end = true;
    while (q < end_) {
      const Step s = step(q);
      if (!(s.classes & kSpace)) {
        at_end = false;
        break;
      }
      if (*q == '\r' || *q == '\n') after_break = s.after;
      last = q;
      q = s.after;
    }
    if (after_break) return after_break;
    return blanks(p, last, q, at_end);
  }

  const char* end_;
  const CodePointClasses& classes_;
  uint8_t ascii_[128];
};

}  // namespace potstill
