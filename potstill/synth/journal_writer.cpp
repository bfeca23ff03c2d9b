#include "potstill/synth/journal_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "potstill/base/error.h"

namespace potstill {

JournalWriter::JournalWriter(const std::filesystem::path& path)
    : path_(path),
      journal_(path),
      reader_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)),
      size_(std::filesystem::file_size(path)),
      thread_([this] { run(); }) {}

JournalWriter::~JournalWriter() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  changed_.notify_all();
  thread_.join();
  if (reader_ >= 0) ::close(reader_);
}

JournalWriter::Place JournalWriter::append(const std::string& line) {
  const std::lock_guard lock(mutex_);
  rethrow();
  if (!waiting_.empty()) waiting_ += '\n';
  waiting_ += line;
  const Place place{size_, line.size()};
  size_ += line.size() + 1;
  changed_.notify_all();
  return place;
}

std::string JournalWriter::read(const Place& place) const {
  std::string line(place.size, '\0');
  for (size_t done = 0; done < line.size();) {
    const ssize_t got =
        ::pread(reader_, line.data() + done, line.size() - done, static_cast<off_t>(place.offset + done));
    if (got <= 0) {
      throw Error(ErrorKind::kIo, path_.string(),
                  got < 0 ? std::strerror(errno) : "is shorter than it was: somebody else has written into it",
                  "keep other programs away from it while synth runs");
    }
    done += static_cast<size_t>(got);
  }
  return line;
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
