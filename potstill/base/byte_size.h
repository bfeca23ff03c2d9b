// Sizes as people write them.
#pragma once

#include <cstdint>
#include <string_view>

namespace potstill {

// "512MiB", "4GiB", "1.5 GB", "800M", "4096" (bytes). K, M, G, T with "B" or nothing are powers of ten, with "iB"
// powers of two; case does not matter. Throws Error(kUsage) that names `what` for anything else.
uint64_t parse_byte_size(std::string_view text, std::string_view what);

}  // namespace potstill
