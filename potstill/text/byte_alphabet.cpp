#include "potstill/text/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "potstill/text/unicode.h"

namespace potstill {
namespace {

// GPT-2's bytes_to_unicode(): printable Latin-1 stands for itself, the other 68 bytes follow from U+0100 on.
constexpr bool is_itself(uint32_t byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Alphabet {
  std::array<uint16_t, 256> character_of{};
  std::array<int16_t, 0x144> byte_of{};
};

constexpr Alphabet make_alphabet() {
  Alphabet alphabet;
  for (auto& byte : alphabet.byte_of) byte = -1;
  uint16_t next = 0x100;
  for (uint16_t byte = 0; byte < 256; ++byte) {
    const uint16_t character = is_itself(byte) ? byte : next++;
    alphabet.character_of[byte] = character;
    alphabet.byte_of[character] = static_cast<int16_t>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = make_alphabet();

}  // namespace

bool append_spelled_bytes(std::string_view spelling, std::string& out) {
  const size_t size_before = out.size();
  out.resize(size_before + spelling.size());  // no character is shorter than its byte
  char* to = out.data() + size_before;
  for (size_t i = 0; i < spelling.size();) {
    uint32_t character = static_cast<unsigned char>(spelling[i++]);
    if (character >= 0xC2 && character <= 0xC5 && i < spelling.size() && (spelling[i] & 0xC0) == 0x80) {
      character = (character & 0x1F) << 6 | (static_cast<unsigned char>(spelling[i++]) & 0x3Fu);
    } else if (character >= 0x80) {
      character = 0;  // no UTF-8 of a character below U+0144; NUL is not of the alphabet
    }
    const int byte = character < kAlphabet.byte_of.size() ? kAlphabet.byte_of[character] : -1;
    if (byte < 0) {
      out.resize(size_before);
      return false;
    }
    *to++ = static_cast<char>(byte);
  }
  out.resize(static_cast<size_t>(to - out.data()));
  return true;
}

std::string spell_bytes(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  for (const char byte : bytes) append_utf8(kAlphabet.character_of[static_cast<unsigned char>(byte)], out);
  return out;
}

}  // namespace potstill
