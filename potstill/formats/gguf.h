// GGUF v3: reader over a mapped file and streaming writer.          layout: ggml-org/ggml docs/gguf.md
//   "GGUF" | u32 version | u64 tensors | u64 keys | key-value pairs | tensor infos | padding | tensors, each padded
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "potstill/base/mapped_file.h"
#include "potstill/base/tensor_view.h"
#include "potstill/formats/tensor_writer.h"

namespace potstill {

enum class GgufType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

// A metadata value: numbers are held widened, and written in their type again.
struct GgufValue {
  GgufType type = GgufType::kU32;
  GgufType element_type = GgufType::kU32;  // of an array; arrays of arrays are refused, as llama.cpp refuses them
  std::variant<uint64_t, int64_t, double, bool, std::string, std::vector<uint64_t>, std::vector<int64_t>,
               std::vector<double>, std::vector<bool>, std::vector<std::string>>
      value;

  static GgufValue u32(uint64_t value);
  static GgufValue f32(double value);
  static GgufValue boolean(bool value);
  static GgufValue string(std::string value);
  static GgufValue strings(std::vector<std::string> values);
  static GgufValue i32s(std::vector<int64_t> values);

  // nothing when the value is of another kind; any integer type that fits counts as integer, and as a number
  std::optional<int64_t> as_integer() const;
  std::optional<double> as_number() const;
  std::optional<bool> as_bool() const;
  const std::string* as_string() const;
  const std::vector<std::string>* as_strings() const;
  std::optional<std::vector<int64_t>> as_integers() const;  // an array of integers

  bool operator==(const GgufValue&) const = default;
};

using GgufMetadata = std::vector<std::pair<std::string, GgufValue>>;  // in the file's order

constexpr uint32_t kGgufDefaultAlignment = 32;

struct GgufContents {
  GgufMetadata metadata;
  std::vector<TensorView> tensors;  // in the file's order; shapes in torch order; bytes borrowed from the file's
  uint32_t alignment = kGgufDefaultAlignment;
};

// Reads metadata and tensor table out of a whole file. Throws Error(kFormat) for whatever llama.cpp refuses, and
// Error(kInput) for a tensor type that is not read here, by its name.
GgufContents parse_gguf(std::span<const std::byte> file, std::string_view where);

class GgufFile {
 public:
  explicit GgufFile(const std::filesystem::path& path);

  const GgufMetadata& metadata() const { return contents_.metadata; }
  const std::vector<TensorView>& tensors() const { return contents_.tensors; }
  uint32_t alignment() const { return contents_.alignment; }
  const TensorView* find_tensor(std::string_view name) const;

  const GgufValue* find(std::string_view key) const;  // nullptr when absent
  // The value of a key: nothing when it is absent, Error(kFormat) when it is of another kind.
  std::optional<int64_t> integer(std::string_view key) const;
  std::optional<double> number(std::string_view key) const;
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<std::string> string(std::string_view key) const;
  const std::vector<std::string>* strings(std::string_view key) const;
  std::optional<std::vector<int64_t>> integers(std::string_view key) const;
  // The same, and Error(kFormat) "missing key '…'" when it is absent.
  int64_t require_integer(std::string_view key) const;
  double require_number(std::string_view key) const;
  std::string require_string(std::string_view key) const;
  std::string where() const { return file_.path().string(); }
  void forget_pages() const { file_.forget_pages(); }

 private:
  [[noreturn]] void wrong_kind(std::string_view key, std::string_view wanted) const;
  [[noreturn]] void missing(std::string_view key) const;

  MappedFile file_;
  GgufContents contents_;
  std::vector<std::pair<std::string_view, size_t>> tensor_index_;  // sorted by name
};

// Writes a file; tensors lie in the declared order, their data may come in any.
class GgufWriter {
 public:
  // Error(kInput) for what llama.cpp would not load: names over 63 bytes, more than 4 dimensions, types it has not.
  GgufWriter(const std::filesystem::path& path, const GgufMetadata& metadata, const std::vector<TensorSpec>& tensors,
             uint32_t alignment = kGgufDefaultAlignment);

  void append(std::string_view name, std::span<const std::byte> bytes) { writer_->append(name, bytes); }
  void finish() { writer_->finish(); }

 private:
  std::unique_ptr<TensorWriter> writer_;
};

}  // namespace potstill
