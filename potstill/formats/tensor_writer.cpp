#include "potstill/formats/tensor_writer.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "potstill/base/check.h"
#include "potstill/base/error.h"

namespace potstill {

uint64_t TensorSpec::bytes() const {
  if (const auto size = tensor_bytes(dtype, shape)) return *size;
  throw Error(ErrorKind::kInput, name,
              fmt::format("shape [{}] cannot be stored as {}", fmt::join(shape, ", "), dtype_name(dtype)),
              "dimensions must not be negative, and a row of a block type is a whole number of blocks");
}

TensorWriter::TensorWriter(const std::filesystem::path& path, std::span<const std::byte> header,
                           const std::vector<PlacedTensor>& tensors, uint64_t file_bytes)
    : path_(path), file_(path), file_bytes_(file_bytes) {
  for (const PlacedTensor& tensor : tensors) {
    const Region region{.offset = tensor.offset, .size = tensor.spec.bytes()};
    POTSTILL_CHECK(region.offset >= header.size() && region.offset + region.size <= file_bytes);
    POTSTILL_CHECK(regions_.emplace(tensor.spec.name, region).second);
  }
  file_.write(header);
}

void TensorWriter::append(std::string_view name, std::span<const std::byte> bytes) {
  const auto found = regions_.find(name);
  if (found == regions_.end()) {
    throw Error(ErrorKind::kInput, path_.string(), fmt::format("tensor '{}' was not declared", name));
  }
  Region& region = found->second;
  if (bytes.size() > region.size - region.written) {
    throw Error(
        ErrorKind::kInput, path_.string(),
        fmt::format("tensor '{}' takes {} bytes but {} were given", name, region.size, region.written + bytes.size()));
  }
  file_.write_at(region.offset + region.written, bytes);  // past the end the file grows, with zeros in between
  region.written += bytes.size();
}

void TensorWriter::finish() {
  uint64_t end = file_.size();
  for (const auto& [name, region] : regions_) {
    if (region.written != region.size) {
      throw Error(ErrorKind::kInput, path_.string(),
                  fmt::format("tensor '{}' takes {} bytes but only {} were given", name, region.size, region.written));
    }
    end = std::max(end, region.offset + region.size);
  }
  if (end < file_bytes_) {  // the file system fills the gap before this byte with zeros
    const std::byte zero{0};
    file_.write_at(file_bytes_ - 1, {&zero, 1});
  }
  file_.commit();
}

}  // namespace potstill
