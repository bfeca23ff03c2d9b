// A table for the terminal: columns as wide as their cells, numbers to the right.
#pragma once

#include <string>
#include <vector>

namespace potstill {

// rows[0] is the head. Empty cells show as "–"; a column without any filled cell is left out. Widths count characters.
std::string text_table(const std::vector<std::vector<std::string>>& rows);

}  // namespace potstill
