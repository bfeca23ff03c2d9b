// SHA-256 as lower-case hexadecimal (OpenSSL).
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace potstill {

std::string sha256_hex(std::string_view bytes);
std::string sha256_file(const std::filesystem::path& path);
// Of a folder: over the sorted relative paths and contents of its regular files.
std::string sha256_tree(const std::filesystem::path& path);

}  // namespace potstill
