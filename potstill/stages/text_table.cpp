#include "potstill/stages/text_table.h"

#include <algorithm>

namespace potstill {
namespace {

size_t width_of(const std::string& cell) {  // code points; the cells hold no wide characters
  return static_cast<size_t>(std::ranges::count_if(cell, [](char c) { return (c & 0xc0) != 0x80; }));
}

std::string padded(const std::string& cell, size_t width, bool right) {
  const std::string blanks(width - width_of(cell), ' ');
  return right ? blanks + cell : cell + blanks;
}

}  // namespace

std::string text_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> columns, widths;
  for (size_t c = 0; c < rows.front().size(); ++c) {
    size_t width = 1;
    bool filled = false;
    for (size_t r = 0; r < rows.size(); ++r) {
      filled |= r > 0 && !rows[r][c].empty();
      width = std::max(width, width_of(rows[r][c]));
    }
    if (!filled) continue;
    columns.push_back(c);
    widths.push_back(width);
  }
  std::string text;
  for (size_t r = 0; r < rows.size(); ++r) {
    for (size_t i = 0; i < columns.size(); ++i) {
      const std::string& cell = rows[r][columns[i]];
      const bool first = i == 0;
      text += (first ? "" : "   ") + padded(cell.empty() ? "–" : cell, widths[i], !first);
    }
    text.erase(text.find_last_not_of(' ') + 1);
    text += "\n";
    if (r > 0) continue;
    for (size_t i = 0; i < columns.size(); ++i) {
      if (i > 0) text += "───";
      for (size_t k = 0; k < widths[i]; ++k) text += "─";
    }
    text += "\n";
  }
  text.pop_back();
  return text;
}

}  // namespace potstill
