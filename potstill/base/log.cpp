#include "potstill/base/log.h"

#include <spdlog/sinks/ansicolor_sink.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>

namespace potstill {
namespace {

using Clock = std::chrono::steady_clock;
Verbosity g_verbosity = Verbosity::kNormal;  // set once at start-up by cli
bool g_line_open = false;                    // a progress line stands on the terminal without its "\n"

spdlog::logger& logger() {
  static const std::shared_ptr<spdlog::logger> instance = [] {
    const bool colour = std::getenv("NO_COLOR") == nullptr;
    auto sink = std::make_shared<spdlog::sinks::ansicolor_stderr_sink_st>(colour ? spdlog::color_mode::automatic
                                                                                 : spdlog::color_mode::never);
    auto created = std::make_shared<spdlog::logger>("potstill", std::move(sink));
    created->set_pattern("%^%v%$");
    return created;
  }();
  return *instance;
}

void clear_line() {
  if (g_line_open) fmt::print(stderr, "\r\033[K");
  g_line_open = false;
}

}  // namespace

void set_verbosity(Verbosity verbosity) {
  g_verbosity = verbosity;
  using spdlog::level::level_enum;
  logger().set_level(verbosity == Verbosity::kQuiet     ? level_enum::warn
                     : verbosity == Verbosity::kVerbose ? level_enum::debug
                                                        : level_enum::info);
}

bool stderr_is_terminal() { return ::isatty(STDERR_FILENO) == 1; }

void log_line(int level, std::string_view message) {
  clear_line();
  if (level == 0) {
    logger().debug(message);
  } else if (level == 1) {
    logger().log(spdlog::level::info, message);
  } else {
    logger().warn("warning: {}", message);
  }
}

Progress::Progress(std::string_view label, int64_t total, std::string_view unit)
    : label_(label), unit_(unit), total_(total), start_(Clock::now()), printed_(start_) {}

Progress::~Progress() {
  if (!finished_) clear_line();
}

void Progress::advance(int64_t count, std::string_view note) {
  done_ += count;
  if (!note.empty()) note_ = note;
  const auto interval = stderr_is_terminal() ? std::chrono::milliseconds(100) : std::chrono::milliseconds(10'000);
  const auto now = Clock::now();
  if (now - printed_ < interval) return;
  printed_ = now;
  print(/*last=*/false);
}

void Progress::finish(std::string_view note) {
  if (!note.empty()) note_ = note;
  finished_ = true;
  print(/*last=*/true);
}

void Progress::print(bool last) {
  if (g_verbosity == Verbosity::kQuiet) return;
  const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  const double rate = static_cast<double>(done_) / std::max(seconds, 1e-9);
  std::string line = total_ > 0 ? fmt::format("{}  {}/{} {}", label_, done_, total_, unit_)
                                : fmt::format("{}  {} {}", label_, done_, unit_);
  line += fmt::format("  {:.3g} {}/s", rate, unit_);
  if (last) {
    line += fmt::format("  in {}", format_duration(seconds));
  } else if (total_ > 0 && done_ > 0) {
    line += fmt::format("  {} left", format_duration(static_cast<double>(total_ - done_) / rate));
  }
  if (!note_.empty()) line += "  " + note_;
  if (last || !stderr_is_terminal()) {
    log_line(1, line);
  } else {
    fmt::print(stderr, "\r\033[K{}", line);
    g_line_open = true;
  }
}

std::string format_duration(double seconds) {
  if (seconds < 60) return fmt::format("{:.{}f} s", seconds, seconds < 10 ? 2 : 0);
  const int64_t whole = std::llround(seconds);
  if (whole < 3600) return fmt::format("{} min {:02d} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02d} min", whole / 3600, whole % 3600 / 60);
}

std::string format_bytes(uint64_t bytes) {
  const auto count = static_cast<double>(bytes);
  if (bytes < 1000) return fmt::format("{} B", bytes);
  if (bytes < 1000'000) return fmt::format("{:.1f} kB", count / 1e3);
  if (bytes < 1000'000'000) return fmt::format("{:.1f} MB", count / 1e6);
  return fmt::format("{:.2f} GB", count / 1e9);
}

}  // namespace potstill
