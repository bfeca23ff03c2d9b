// TensorWriter: the data part of a file whose tensors are declared first and then filled in any order, a piece at a
// time: what safetensors and GGUF writers share.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "potstill/base/atomic_file.h"
#include "potstill/base/dtype.h"

namespace potstill {

struct TensorSpec {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  // row-major, last dimension contiguous

  uint64_t bytes() const;  // Error(kInput) for a shape that cannot be: negative, overflow, a broken block
};

// A tensor and where its bytes begin in the file.
struct PlacedTensor {
  TensorSpec spec;
  uint64_t offset = 0;
};

class TensorWriter {
 public:
  // Opens "<path>.partial" and writes header; the tensors lie behind it, gaps are zeros. file_bytes: the whole length.
  TensorWriter(const std::filesystem::path& path, std::span<const std::byte> header,
               const std::vector<PlacedTensor>& tensors, uint64_t file_bytes);

  // Adds the next bytes of a tensor; tensors may take turns. Error(kInput) for an unknown name or too many bytes.
  void append(std::string_view name, std::span<const std::byte> bytes);
  // Error(kInput) when a tensor lacks bytes; then syncs the file and gives it its name.
  void finish();
  const std::filesystem::path& path() const { return path_; }

 private:
  struct Region {
    uint64_t offset = 0, size = 0, written = 0;
  };
  std::filesystem::path path_;
  AtomicFile file_;
  std::map<std::string, Region, std::less<>> regions_;
  uint64_t file_bytes_;
};

}  // namespace potstill
