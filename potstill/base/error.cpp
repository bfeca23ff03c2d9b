#include "potstill/base/error.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <vector>

namespace potstill {

Error::Error(ErrorKind kind, std::string_view where, std::string_view what, std::string_view hint)
    : std::runtime_error(
          fmt::format("{}{}{}{}{}", where, where.empty() ? "" : ": ", what, hint.empty() ? "" : "\n  hint: ", hint)),
      kind_(kind) {}

int Error::exit_code() const {
  switch (kind_) {
    case ErrorKind::kUsage:
    case ErrorKind::kInput:
      return 2;
    case ErrorKind::kFormat:
      return 3;
    case ErrorKind::kIo:
      return 4;
    case ErrorKind::kNetwork:
      return 5;
    case ErrorKind::kNumeric:
      return 6;
    case ErrorKind::kMemory:
      return 7;
    case ErrorKind::kInterrupted:
      return 130;
  }
  return 1;
}

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row[b.size()];
}

}  // namespace potstill
