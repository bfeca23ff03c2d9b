// GPT-2's alphabet: every byte has a printable character, so that vocabularies are text ("Ġthe" is " the").
#pragma once

#include <string>
#include <string_view>

namespace potstill {

// Appends the bytes that `spelling` stands for; false (and nothing appended) if a character is not of the alphabet.
bool append_spelled_bytes(std::string_view spelling, std::string& out);
std::string spell_bytes(std::string_view bytes);

}  // namespace potstill
