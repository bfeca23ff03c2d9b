// HiddenFile: the hidden states of a whole corpus between two layers, on the disk instead of in memory. A layer reads
// one side and writes the other, so that a pass killed in mid-layer still has what the layer began with.
#pragma once

#include <ATen/ATen.h>

#include <array>
#include <cstdint>
#include <filesystem>

namespace potstill {

class HiddenFile {
 public:
  // <path>.0 and <path>.1, each of num_rows × width values; created where they are absent or of another size. Throws
  // Error(kIo), also when the disk has no room for both.
  HiddenFile(const std::filesystem::path& path, int64_t num_rows, int64_t width, at::ScalarType dtype);
  ~HiddenFile();
  HiddenFile(const HiddenFile&) = delete;
  HiddenFile& operator=(const HiddenFile&) = delete;

  at::Tensor read(int side, int64_t first_row, int64_t num_rows) const;  // [num_rows, width] on the CPU
  void write(int side, int64_t first_row, const at::Tensor& rows);       // CPU or device, the file's dtype
  void sync(int side);                                                   // to the disk itself
  void remove();                                                         // both files; the object is dead then

 private:
  std::filesystem::path side_path(int side) const;
  std::filesystem::path path_;
  int64_t width_;
  at::ScalarType dtype_;
  std::array<int, 2> descriptors_ = {-1, -1};
};

}  // namespace potstill
