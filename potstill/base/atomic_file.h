// AtomicFile: a file that appears under its name whole or not at all.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace potstill {

// Writes into "<path>.partial"; commit() syncs it and renames it. Destroyed without commit(), it removes the partial
// file. Every failing write (disk full, no permission) throws Error(kIo) that names the file.
class AtomicFile {
 public:
  explicit AtomicFile(const std::filesystem::path& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  // Overwrites bytes already written, for a header whose contents are known last.
  void write_at(uint64_t offset, std::span<const std::byte> bytes);
  uint64_t size() const { return size_; }
  void commit();

 private:
  void flush();
  std::filesystem::path path_, partial_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
  std::string buffer_;
};

void write_file_atomically(const std::filesystem::path& path, std::string_view contents);

// The whole file as a string. Throws Error(kIo).
std::string read_file(const std::filesystem::path& path);

// Appends one line ("\n" added) and syncs it to the disk: for journals that must survive a kill.
class Journal {
 public:
  // A torn last line (no "\n": the writer was killed) is cut off.
  explicit Journal(const std::filesystem::path& path);
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;
  void append(std::string_view line);

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

// fsync of a directory, so that a rename inside it survives a power cut.
void sync_directory(const std::filesystem::path& directory);

}  // namespace potstill
