// Error: what a user, a file or a network can cause. The message says where, what and what to do; the kind maps to an
// exit code in cli. Our own mistakes go through POTSTILL_CHECK (check.h) instead.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace potstill {

enum class ErrorKind {
  kUsage,        // a wrong flag or setting
  kInput,        // a file, recipe or data set that says something it may not
  kFormat,       // bytes that are not the format they claim to be
  kIo,           // missing file, disk full, no permission
  kNetwork,      // an endpoint that fails
  kNumeric,      // NaN, divergence, a proof that failed
  kMemory,       // not enough of it
  kInterrupted,  // Ctrl-C: work stopped cleanly and can go on
};

class Error : public std::runtime_error {
 public:
  // The message is "<where>: <what>\n  hint: <hint>"; an empty where or hint leaves its part out.
  Error(ErrorKind kind, std::string_view where, std::string_view what, std::string_view hint = {});

  ErrorKind kind() const { return kind_; }
  // Process exit status: 2 usage and input, 3 format, 4 io, 5 network, 6 numeric, 7 memory, 130 interrupted.
  int exit_code() const;

 private:
  ErrorKind kind_;
};

// The entry of `candidates` with the least edit distance to `word`, for "did you mean"; empty when none is near.
template <class Range>
std::string nearest_name(std::string_view word, const Range& candidates);

// Levenshtein distance in bytes.
size_t edit_distance(std::string_view a, std::string_view b);

template <class Range>
std::string nearest_name(std::string_view word, const Range& candidates) {
  std::string best;
  size_t best_distance = word.size() / 2 + 1;  // more than half of the word wrong is no near miss
  for (const auto& candidate : candidates) {
    const size_t distance = edit_distance(word, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = std::string(candidate);
    }
  }
  return best;
}

}  // namespace potstill
