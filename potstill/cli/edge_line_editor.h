// LineEditor: a line typed at a terminal, with the keys that people expect and the lines from before.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace potstill {

// Reads standard input and writes to standard error. Arrows, Home, End, Delete, Ctrl-A/E/B/F/P/N/K/U/W/L/D; a paste is
// one line, its line breaks kept. Where the terminal cannot be set (TERM=dumb), the system's own line editing serves.
class LineEditor {
 public:
  explicit LineEditor(std::string prompt) : prompt_(std::move(prompt)) {}

  struct Line {
    std::string text;
    bool interrupted = false;  // by Ctrl-C: `text` is what had been typed
  };
  // Nothing at Ctrl-D on an empty line or at the end of the input.
  std::optional<Line> next();

 private:
  std::optional<Line> edit();
  void escape_sequence();
  void paste();
  void insert(std::string_view bytes);
  void erase(size_t begin, size_t end);
  size_t left_of(size_t at) const;
  size_t right_of(size_t at) const;
  size_t word_before(size_t at) const;
  void go_to_line(size_t index);
  void draw();

  std::string prompt_, text_;
  size_t cursor_ = 0;   // a byte of text_, at the start of a character
  int cursor_row_ = 0;  // of the terminal, counted from the prompt's
  std::vector<std::string> history_;
  size_t history_at_ = 0;  // history_.size(): the new line
  std::string new_line_;   // what had been typed of it, while others are looked at
};

}  // namespace potstill
