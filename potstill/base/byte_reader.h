// ByteReader: little-endian fields of an untrusted buffer, front to back.
#pragma once

#include <fmt/format.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "potstill/base/error.h"

namespace potstill {

static_assert(std::endian::native == std::endian::little, "every file format here is little-endian");

// A hostile length makes a read throw; it can neither leave the buffer nor make us allocate more than the file holds.
class ByteReader {
 public:
  ByteReader(std::string_view file, std::span<const std::byte> bytes) : file_(file), bytes_(bytes) {}

  template <class T>
  requires std::is_trivially_copyable_v<T> T read(std::string_view field) {
    T value;
    std::memcpy(&value, take(sizeof(T), field).data(), sizeof(T));
    return value;
  }

  // The next `count` bytes, borrowed from the buffer.
  std::span<const std::byte> take(uint64_t count, std::string_view field) {
    const uint64_t left = bytes_.size() - offset_;  // never wraps: offset_ <= size
    if (count > left) {                             // not `offset_ + count > size`: that sum can wrap
      throw Error(ErrorKind::kFormat, fmt::format("{} @{}", file_, offset_),
                  fmt::format("{} needs {} bytes but {} remain", field, count, left),
                  "the file is truncated or is not this format; fetch or export it again");
    }
    const auto taken = bytes_.subspan(offset_, count);
    offset_ += count;
    return taken;
  }

  uint64_t offset() const { return offset_; }
  uint64_t remaining() const { return bytes_.size() - offset_; }

 private:
  std::string file_;
  std::span<const std::byte> bytes_;
  uint64_t offset_ = 0;
};

}  // namespace potstill
