// Words of a text as the filters compare them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace potstill {

// Lower-case runs of letters, digits and inner apostrophes; bytes past ASCII count as letters.
std::vector<std::string> words_of(std::string_view text);

// A crude stem: enough that "rocks" meets "rock" and "pulling" meets "pull"; the same for both sides of a comparison.
std::string stem(std::string_view word);

// Stems of the words that carry meaning: without articles, pronouns, auxiliaries, prepositions and question words.
std::vector<std::string> content_stems(std::string_view text);

// "not", "no", "never", "cannot", "don't", …
bool has_negation(std::string_view text);

// Words with a digit in them, as written ("24", "4.5", "H2O").
std::vector<std::string> numerals_of(std::string_view text);

}  // namespace potstill
