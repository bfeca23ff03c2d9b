// Log and progress, on stderr: stdout is for results alone.
#pragma once

#include <fmt/format.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace potstill {

enum class Verbosity { kQuiet, kNormal, kVerbose };

// Set once, by cli. Quiet leaves warnings and errors; colours are off when NO_COLOR is set or stderr is no terminal.
void set_verbosity(Verbosity verbosity);
bool stderr_is_terminal();

void log_line(int level, std::string_view message);  // 0 debug, 1 info, 2 warning
template <class... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  log_line(0, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log_line(1, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  log_line(2, fmt::format(format, std::forward<Args>(args)...));
}

// Progress of long work: done/total, rate, time left and a note of the caller's. On a terminal one line that is
// rewritten; elsewhere a plain line every ten seconds; with --quiet nothing. Not thread-safe: one thread reports.
class Progress {
 public:
  // unit: "tokens", "pairs", "layers", …; total 0 = not known.
  Progress(std::string_view label, int64_t total, std::string_view unit);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void advance(int64_t count = 1, std::string_view note = {});
  void finish(std::string_view note = {});  // the last line, with the whole time; the destructor only clears

 private:
  void print(bool last);
  std::string label_, unit_, note_;
  int64_t done_ = 0, total_;
  std::chrono::steady_clock::time_point start_, printed_;
  bool finished_ = false;
};

std::string format_duration(double seconds);  // "0.42 s", "3 min 05 s", "2 h 11 min"
std::string format_bytes(uint64_t bytes);     // "98.4 MB" (powers of ten, as the Hub counts)

}  // namespace potstill
