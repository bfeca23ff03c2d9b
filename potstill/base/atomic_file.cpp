#include "potstill/base/atomic_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "potstill/base/error.h"

namespace potstill {
namespace {

constexpr size_t kBufferBytes = 1 << 20;

[[noreturn]] void throw_io(const std::filesystem::path& path, int error) {
  const std::string_view hint =
      error == ENOSPC ? "free some space, or choose another folder; the same command goes on where it was" : "";
  throw Error(ErrorKind::kIo, path.string(), fmt::format("cannot write: {}", std::strerror(error)), hint);
}

void write_fully(int descriptor, const std::filesystem::path& path, const char* data, size_t count) {
  while (count > 0) {
    const ssize_t written = ::write(descriptor, data, count);
    if (written < 0) {
      if (errno == EINTR) continue;
      throw_io(path, errno);
    }
    data += written;
    count -= static_cast<size_t>(written);
  }
}

}  // namespace

AtomicFile::AtomicFile(const std::filesystem::path& path) : path_(path), partial_(path.string() + ".partial") {
  descriptor_ = ::open(partial_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor_ < 0) throw_io(partial_, errno);
  buffer_.reserve(kBufferBytes);
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(partial_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  write(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

void AtomicFile::write(std::string_view text) {
  size_ += text.size();
  if (buffer_.size() + text.size() > kBufferBytes) flush();
  if (text.size() >= kBufferBytes) {
    write_fully(descriptor_, partial_, text.data(), text.size());
  } else {
    buffer_.append(text);
  }
}

void AtomicFile::write_at(uint64_t offset, std::span<const std::byte> bytes) {
  flush();
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t written =
        ::pwrite(descriptor_, bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
    if (written < 0) {
      if (errno == EINTR) continue;
      throw_io(partial_, errno);
    }
    done += static_cast<size_t>(written);
  }
}

void AtomicFile::flush() {
  write_fully(descriptor_, partial_, buffer_.data(), buffer_.size());
  buffer_.clear();
}

void AtomicFile::commit() {
  flush();
  if (::fsync(descriptor_) != 0) throw_io(partial_, errno);
  ::close(descriptor_);
  descriptor_ = -1;
  if (::rename(partial_.c_str(), path_.c_str()) != 0) {
    const int error = errno;
    ::unlink(partial_.c_str());
    throw_io(path_, error);
  }
  sync_directory(path_.parent_path());
}

void write_file_atomically(const std::filesystem::path& path, std::string_view contents) {
  AtomicFile file(path);
  file.write(contents);
  file.commit();
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw Error(ErrorKind::kIo, path.string(), std::strerror(errno), "check the path");
  std::ostringstream contents;
  contents << stream.rdbuf();
  if (std::filesystem::is_directory(path) || stream.bad()) throw Error(ErrorKind::kIo, path.string(), "cannot be read");
  return std::move(contents).str();
}

Journal::Journal(const std::filesystem::path& path) : path_(path) {
  descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor_ < 0) throw_io(path, errno);
  off_t end = ::lseek(descriptor_, 0, SEEK_END);
  for (char last = 0; end > 0; --end) {
    if (::pread(descriptor_, &last, 1, end - 1) != 1) throw_io(path, errno);
    if (last == '\n') break;
  }
  if (::ftruncate(descriptor_, end) != 0 || ::lseek(descriptor_, end, SEEK_SET) < 0) throw_io(path, errno);
}

Journal::~Journal() { ::close(descriptor_); }

void Journal::append(std::string_view line) {
  const std::string whole = fmt::format("{}\n", line);
  write_fully(descriptor_, path_, whole.data(), whole.size());
  if (::fdatasync(descriptor_) != 0) throw_io(path_, errno);
}

void sync_directory(const std::filesystem::path& directory) {
  const int descriptor = ::open(directory.empty() ? "." : directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  ::fsync(descriptor);
  ::close(descriptor);
}

}  // namespace potstill
