#include "potstill/nn/hidden_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "potstill/base/check.h"
#include "potstill/base/error.h"

namespace potstill {
namespace {

[[noreturn]] void fail(const std::filesystem::path& path, const char* hint = "") {
  throw Error(ErrorKind::kIo, path.string(), std::strerror(errno), hint);
}

}  // namespace

std::filesystem::path HiddenFile::side_path(int side) const { return path_.string() + "." + std::to_string(side); }

HiddenFile::HiddenFile(const std::filesystem::path& path, int64_t num_rows, int64_t width, at::ScalarType dtype)
    : path_(path), width_(width), dtype_(dtype) {
  const auto bytes = static_cast<off_t>(num_rows * width * static_cast<int64_t>(c10::elementSize(dtype)));
  for (int side = 0; side < 2; ++side) {
    int& descriptor = descriptors_[static_cast<size_t>(side)];
    descriptor = ::open(side_path(side).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (descriptor < 0) fail(side_path(side));
    struct stat info {};
    if (::fstat(descriptor, &info) != 0) fail(side_path(side));
    if (info.st_size == bytes) continue;
    // Reserved at once: a full disk shows here, not after hours.
    const int refused = ::ftruncate(descriptor, 0) != 0 ? errno : ::posix_fallocate(descriptor, 0, bytes);
    if (refused != 0) {
      errno = refused;
      fail(side_path(side), "the hidden states between two layers need room beside the cache, twice");
    }
  }
}

HiddenFile::~HiddenFile() {
  for (const int descriptor : descriptors_) {
    if (descriptor >= 0) ::close(descriptor);
  }
}

at::Tensor HiddenFile::read(int side, int64_t first_row, int64_t num_rows) const {
  at::Tensor rows = at::empty({num_rows, width_}, dtype_);
  auto* to = static_cast<char*>(rows.mutable_data_ptr());
  const auto row_bytes = static_cast<size_t>(rows.element_size() * width_);
  auto offset = static_cast<off_t>(static_cast<size_t>(first_row) * row_bytes);
  for (size_t left = rows.nbytes(); left > 0;) {
    const ssize_t got = ::pread(descriptors_[static_cast<size_t>(side)], to, left, offset);
    if (got < 0 && errno == EINTR) continue;
    if (got == 0) errno = EIO;
    if (got <= 0) fail(side_path(side));
    to += got;
    offset += got;
    left -= static_cast<size_t>(got);
  }
  return rows;
}

void HiddenFile::write(int side, int64_t first_row, const at::Tensor& tensor) {
  const at::Tensor rows = tensor.cpu().contiguous();
  POTSTILL_CHECK(rows.scalar_type() == dtype_ && rows.size(1) == width_);
  const auto* from = static_cast<const char*>(rows.const_data_ptr());
  const auto row_bytes = static_cast<size_t>(rows.element_size() * width_);
  auto offset = static_cast<off_t>(static_cast<size_t>(first_row) * row_bytes);
  for (size_t left = rows.nbytes(); left > 0;) {
    const ssize_t put = ::pwrite(descriptors_[static_cast<size_t>(side)], from, left, offset);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) fail(side_path(side));
    from += put;
    offset += put;
    left -= static_cast<size_t>(put);
  }
}

void HiddenFile::sync(int side) {
  if (::fdatasync(descriptors_[static_cast<size_t>(side)]) != 0) fail(side_path(side));
}

void HiddenFile::remove() {
  for (int side = 0; side < 2; ++side) std::filesystem::remove(side_path(side));
}

}  // namespace potstill
