// MappedFile: a whole file, read-only, mapped rather than copied.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace potstill {

class MappedFile {
 public:
  // Throws Error(kIo) when the file cannot be opened or mapped. An empty file gives an empty span.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }
  const std::filesystem::path& path() const { return path_; }

  // Lets the kernel take the pages back that are resident here: they come again from the file when they are touched.
  void forget_pages() const;

 private:
  std::filesystem::path path_;
  std::span<const std::byte> bytes_;
};

}  // namespace potstill
