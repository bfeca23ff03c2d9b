// JournalWriter: lines go to a journal from a thread of their own, so that whoever receives answers never waits for the
// disk; and are read back from there, so that memory holds none of them.
#pragma once

#include <condition_variable>
#include <cstdint>
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

  struct Place {
    uint64_t offset = 0, size = 0;  // bytes, without the line's end
  };
  Place append(const std::string& line);  // throws what an earlier write failed with
  void flush();                           // returns when all lines are on the disk; throws what a write failed with
  std::string read(const Place& place) const;  // of a line on the disk. Throws Error(kIo).

 private:
  void run();
  void rethrow();

  std::filesystem::path path_;
  Journal journal_;
  int reader_;
  uint64_t size_;  // of the file, when all that waits is in it
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string waiting_;  // lines, parted by "\n"
  bool writing_ = false, closing_ = false;
  std::exception_ptr error_;
  std::thread thread_;
};

}  // namespace potstill
