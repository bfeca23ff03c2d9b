#include "potstill/synth/journal_writer.h"

#include <utility>

namespace potstill {

JournalWriter::JournalWriter(const std::filesystem::path& path) : journal_(path), thread_([this] { run(); }) {}

JournalWriter::~JournalWriter() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void JournalWriter::append(std::string line) {
  const std::lock_guard lock(mutex_);
  rethrow();
  if (!waiting_.empty()) waiting_ += '\n';
  waiting_ += line;
  changed_.notify_all();
}

void JournalWriter::flush() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return error_ || (waiting_.empty() && !writing_); });
  rethrow();
}

void JournalWriter::rethrow() {
  if (error_) std::rethrow_exception(error_);
}

void JournalWriter::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return closing_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    const std::string lines = std::exchange(waiting_, {});
    writing_ = true;
    lock.unlock();
    std::exception_ptr failed;
    try {
      journal_.append(lines);
    } catch (...) {
      failed = std::current_exception();
    }
    lock.lock();
    writing_ = false;
    if (failed) error_ = failed;
    changed_.notify_all();
    if (failed) return;
  }
}

}  // namespace potstill
