// Pairs at random with everything that is known about them, for a human to read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace potstill {

// `count` pairs of <folder>/D_gen.jsonl, drawn by the seed, in the file's order: what is asked and answered, options,
// scores, blind answer, critique, and where the raw answers are. Throws Error(kIo | kFormat).
std::string audit_text(const std::filesystem::path& folder, int64_t count, uint64_t seed);

}  // namespace potstill
