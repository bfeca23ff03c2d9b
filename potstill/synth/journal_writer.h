// JournalWriter: lines go to a journal from a thread of their own, so that whoever receives answers never waits for the
// disk.
#pragma once

#include <condition_variable>
#include <exception>
#include <filesystem>
#include <mutex>
#include <string>
#include <thread>

#include "potstill/base/atomic_file.h"

namespace potstill {

// Group commit: what comes while the disk is busy is written and synced together next. A kill costs the lines of one
// sync at most, some milliseconds' worth.
class JournalWriter {
 public:
  explicit JournalWriter(const std::filesystem::path& path);
  ~JournalWriter();  // writes what is left; an error then is nobody's
  JournalWriter(const JournalWriter&) = delete;
  JournalWriter& operator=(const JournalWriter&) = delete;

  void append(std::string line);  // throws what an earlier write failed with
  void flush();                   // returns when all lines are on the disk; throws what a write failed with

 private:
  void run();
  void rethrow();

  Journal journal_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string waiting_;  // lines, parted by "\n"
  bool writing_ = false, closing_ = false;
  std::exception_ptr error_;
  std::thread thread_;
};

}  // namespace potstill
