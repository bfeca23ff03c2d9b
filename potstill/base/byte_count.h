// Sizes as people write them.
#pragma once

#include <cstdint>
#include <string_view>

namespace potstill {

// "4GiB", "512 MiB", "1.5GB", "800M", "123456": bytes. KiB, MiB, GiB, TiB are powers of 1024; KB, MB, GB, TB and the
// bare letters powers of 1000. Throws Error(kUsage) that names the setting.
uint64_t parse_byte_count(std::string_view text, std::string_view setting);

}  // namespace potstill
