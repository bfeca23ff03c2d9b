#include "potstill/cli/edge_line_editor.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>
#include <wchar.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "potstill/text/unicode.h"

namespace potstill {
namespace {

constexpr char kCtrl(char letter) { return static_cast<char>(letter & 0x1f); }
constexpr char kEscape = 0x1b, kBackspace = 0x7f;
constexpr size_t kHistory = 1000;
constexpr std::string_view kLineBreak = "\xE2\x86\xB5";  // ↵ stands for a line break of a paste

// The terminal gives every key at once while this lives.
class RawTerminal {
 public:
  RawTerminal() {
    if (::tcgetattr(STDIN_FILENO, &before_) != 0) return;
    termios raw = before_;
    raw.c_iflag &= ~static_cast<tcflag_t>(ICRNL | IXON | ISTRIP);
    raw.c_lflag &= ~static_cast<tcflag_t>(ECHO | ICANON | IEXTEN | ISIG);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    set_ = ::tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
    if (set_) write_out("\x1b[?2004h");  // pastes come in brackets
  }
  ~RawTerminal() {
    if (!set_) return;
    write_out("\x1b[?2004l");
    ::tcsetattr(STDIN_FILENO, TCSADRAIN, &before_);
  }
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;
  bool is_set() const { return set_; }
  static void write_out(std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stderr);
    std::fflush(stderr);
  }

 private:
  termios before_{};
  bool set_ = false;
};

// One byte; false at the end of the input.
bool read_byte(char& byte) {
  for (;;) {
    const ssize_t count = ::read(STDIN_FILENO, &byte, 1);
    if (count == 1) return true;
    if (count == 0 || errno != EINTR) return false;
  }
}

int terminal_columns() {
  winsize size{};
  return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

// Columns that a text takes when it is drawn.
int width_of(std::string_view text) {
  int width = 0;
  const char* end = text.data() + text.size();
  for (const char* p = text.data(); p < end;) {
    const auto [code_point, length] = decode_utf8(p, end);
    p += length;
    width += code_point < 0x80
                 ? 1
                 : std::max(0, code_point == kInvalidCodePoint ? 1 : ::wcwidth(static_cast<wchar_t>(code_point)));
  }
  return width;
}

std::string drawn(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\n') {
      out += kLineBreak;
    } else {
      out += c == '\t' ? ' ' : c;
    }
  }
  return out;
}

}  // namespace

std::optional<LineEditor::Line> LineEditor::next() {
  const char* terminal = std::getenv("TERM");
  if (terminal != nullptr && std::string_view(terminal) != "dumb") {
    const RawTerminal raw;
    if (raw.is_set()) return edit();
  }
  RawTerminal::write_out(prompt_);
  text_.clear();
  for (char byte; read_byte(byte);) {
    if (byte == '\n') return Line{text_};
    text_ += byte;
  }
  if (text_.empty()) return std::nullopt;
  return Line{text_};
}

std::optional<LineEditor::Line> LineEditor::edit() {
  text_.clear();
  cursor_ = 0;
  cursor_row_ = 0;
  history_at_ = history_.size();
  draw();
  const auto leave = [this] {
    cursor_ = text_.size();
    draw();
    RawTerminal::write_out("\r\n");
  };
  for (char key; read_byte(key);) {
    if (key == '\r' || key == '\n') {
      leave();
      if (!text_.empty() && (history_.empty() || history_.back() != text_)) history_.push_back(text_);
      if (history_.size() > kHistory) history_.erase(history_.begin());
      return Line{text_};
    }
    if (key == kCtrl('C')) {
      leave();
      return Line{text_, /*interrupted=*/true};
    }
    if (key == kCtrl('D') && text_.empty()) {
      leave();
      return std::nullopt;
    }
    switch (key) {
      case kEscape:
        escape_sequence();
        break;
      case kBackspace:
      case kCtrl('H'):
        erase(left_of(cursor_), cursor_);
        break;
      case kCtrl('D'):
        erase(cursor_, right_of(cursor_));
        break;
      case kCtrl('A'):
        cursor_ = 0;
        break;
      case kCtrl('E'):
        cursor_ = text_.size();
        break;
      case kCtrl('B'):
        cursor_ = left_of(cursor_);
        break;
      case kCtrl('F'):
        cursor_ = right_of(cursor_);
        break;
      case kCtrl('P'):
        if (history_at_ > 0) go_to_line(history_at_ - 1);
        break;
      case kCtrl('N'):
        go_to_line(history_at_ + 1);
        break;
      case kCtrl('K'):
        erase(cursor_, text_.size());
        break;
      case kCtrl('U'):
        erase(0, cursor_);
        break;
      case kCtrl('W'):
        erase(word_before(cursor_), cursor_);
        break;
      case kCtrl('L'):
        RawTerminal::write_out("\x1b[H\x1b[2J");
        cursor_row_ = 0;
        break;
      default:
        if (static_cast<unsigned char>(key) >= 0x20 || key == '\t') insert({&key, 1});
    }
    // A character of several bytes is drawn when it is whole.
    if (complete_utf8_prefix(std::string_view(text_).substr(0, cursor_)) == cursor_) draw();
  }
  return std::nullopt;
}

// What follows an escape: a key of several bytes, "[", "O", digits and ";", then a letter or "~".
void LineEditor::escape_sequence() {
  char byte = 0;
  std::string digits;
  if (!read_byte(byte) || (byte != '[' && byte != 'O')) return;
  while (read_byte(byte) && ((byte >= '0' && byte <= '9') || byte == ';')) digits += byte;
  const std::string key = byte == '~' ? digits + "~" : std::string(1, byte);
  if (key == "200~") {
    paste();
  } else if (key == "A") {
    if (history_at_ > 0) go_to_line(history_at_ - 1);
  } else if (key == "B") {
    go_to_line(history_at_ + 1);
  } else if (key == "C") {
    cursor_ = right_of(cursor_);
  } else if (key == "D") {
    cursor_ = left_of(cursor_);
  } else if (key == "H" || key == "1~" || key == "7~") {
    cursor_ = 0;
  } else if (key == "F" || key == "4~" || key == "8~") {
    cursor_ = text_.size();
  } else if (key == "3~") {
    erase(cursor_, right_of(cursor_));
  }
}

void LineEditor::paste() {
  constexpr std::string_view kEnd = "\x1b[201~";
  std::string pasted;
  for (char byte; read_byte(byte);) {
    pasted += byte == '\r' ? '\n' : byte;
    if (pasted.size() >= kEnd.size() && std::string_view(pasted).substr(pasted.size() - kEnd.size()) == kEnd) {
      pasted.resize(pasted.size() - kEnd.size());
      break;
    }
  }
  pasted.erase(std::remove_if(pasted.begin(), pasted.end(),
                              [](char c) { return static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t'; }),
               pasted.end());
  while (!pasted.empty() && pasted.back() == '\n') pasted.pop_back();
  insert(pasted);
}

void LineEditor::insert(std::string_view bytes) {
  text_.insert(cursor_, bytes);
  cursor_ += bytes.size();
}

void LineEditor::erase(size_t begin, size_t end) {
  text_.erase(begin, end - begin);
  cursor_ = begin;
}

size_t LineEditor::left_of(size_t at) const {
  while (at > 0 && (static_cast<unsigned char>(text_[--at]) & 0xC0) == 0x80) {
  }
  return at;
}

size_t LineEditor::right_of(size_t at) const {
  if (at < text_.size()) ++at;
  while (at < text_.size() && (static_cast<unsigned char>(text_[at]) & 0xC0) == 0x80) ++at;
  return at;
}

size_t LineEditor::word_before(size_t at) const {
  while (at > 0 && text_[at - 1] == ' ') --at;
  while (at > 0 && text_[at - 1] != ' ') --at;
  return at;
}

void LineEditor::go_to_line(size_t index) {
  if (index > history_.size()) return;
  if (history_at_ == history_.size()) new_line_ = text_;
  history_at_ = index;
  text_ = index == history_.size() ? new_line_ : history_[index];
  cursor_ = text_.size();
}

// Draws prompt and text anew from the prompt's row on, over as many rows as they take, and puts the cursor in place.
void LineEditor::draw() {
  const int columns = terminal_columns();
  const std::string before = prompt_ + drawn(std::string_view(text_).substr(0, cursor_)),
                    after = drawn(std::string_view(text_).substr(cursor_));
  const int at = width_of(before), end = at + width_of(after);
  std::string out = cursor_row_ > 0 ? fmt::format("\x1b[{}A", cursor_row_) : std::string();
  out += "\r\x1b[J" + before + after;
  if (end > 0 && end % columns == 0) out += "\r\n";  // a full row leaves the cursor on it until something follows
  const int rows_up = end / columns - at / columns;
  if (rows_up > 0) out += fmt::format("\x1b[{}A", rows_up);
  out += "\r";
  if (at % columns > 0) out += fmt::format("\x1b[{}C", at % columns);
  cursor_row_ = at / columns;
  RawTerminal::write_out(out);
}

}  // namespace potstill
