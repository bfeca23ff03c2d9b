// Python's str methods, where a benchmark's prompt is made by them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace potstill {

std::string_view strip(std::string_view text);  // white space of Unicode, U+0085 and U+001C…1F included
std::string capitalize(std::string_view text);  // the first character upper case, all the rest lower case
int64_t num_characters(std::string_view text);  // code points; a byte that is no UTF-8 counts as one
// Every occurrence, left to right, not overlapping.
std::string replace_all(std::string_view text, std::string_view from, std::string_view to);

}  // namespace potstill
