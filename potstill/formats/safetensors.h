// safetensors: reader over a mapped file, streaming writer, folders of shards.          layout: huggingface/safetensors
//   u64 length of header | JSON header | tensors, back to back
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "potstill/base/mapped_file.h"
#include "potstill/base/tensor_view.h"
#include "potstill/formats/tensor_writer.h"

namespace potstill {

struct SafetensorsContents {
  std::vector<TensorView> tensors;  // sorted by name; bytes borrowed from the file's
  std::map<std::string, std::string> metadata;
};

// Reads the header out of a whole file. Throws Error(kFormat) for whatever the format forbids (holes, overlaps, lying
// lengths, duplicate keys, …) and Error(kInput) for a legal element type that is not read here.
SafetensorsContents parse_safetensors(std::span<const std::byte> file, std::string_view where);

class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::vector<TensorView>& tensors() const { return contents_.tensors; }  // sorted by name
  const std::map<std::string, std::string>& metadata() const { return contents_.metadata; }
  const TensorView* find(std::string_view name) const;     // nullptr when absent
  const TensorView& require(std::string_view name) const;  // Error(kFormat) when absent
  std::string where() const { return file_.path().string(); }
  void forget_pages() const { file_.forget_pages(); }

 private:
  MappedFile file_;
  SafetensorsContents contents_;
};

// Writes one file. Its bytes are those of the safetensors package for the same tensors (wide elements first, then by
// name), whatever the order in which the data comes.
class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorSpec> tensors,
                    const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

  void append(std::string_view name, std::span<const std::byte> bytes) { writer_->append(name, bytes); }
  void finish() { writer_->finish(); }

 private:
  std::unique_ptr<TensorWriter> writer_;
};

// Writes model.safetensors, or model-00001-of-0000N.safetensors and their index where the tensors exceed
// max_shard_bytes. Shards are filled in the declared order. The index is written last.
class SafetensorsFolderWriter {
 public:
  SafetensorsFolderWriter(const std::filesystem::path& folder, const std::vector<TensorSpec>& tensors,
                          uint64_t max_shard_bytes = 5'000'000'000);

  void append(std::string_view name, std::span<const std::byte> bytes);
  void finish();

 private:
  std::filesystem::path folder_;
  uint64_t total_bytes_ = 0;
  std::vector<std::string> file_names_;
  std::vector<std::unique_ptr<SafetensorsWriter>> shards_;
  std::map<std::string, size_t, std::less<>> shard_of_;
};

}  // namespace potstill
