#include "potstill/base/byte_count.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>

#include "potstill/base/error.h"

namespace potstill {

uint64_t parse_byte_count(std::string_view text, std::string_view setting) {
  constexpr std::array<std::string_view, 4> kLetters = {"K", "M", "G", "T"};
  double value = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  std::string_view unit = text.substr(static_cast<size_t>(stop - text.data()));
  while (unit.starts_with(' ')) unit.remove_prefix(1);
  double scale = unit.empty() || unit == "B" ? 1 : 0;
  for (size_t i = 0; i < kLetters.size(); ++i) {
    const auto power = static_cast<double>(i + 1);
    if (unit == std::string(kLetters[i]) + "iB") scale = std::pow(1024.0, power);
    if (unit == kLetters[i] || unit == std::string(kLetters[i]) + "B") scale = std::pow(1000.0, power);
  }
  if (error != std::errc() || !(value > 0) || scale == 0 || value * scale > 1e18) {
    throw Error(ErrorKind::kUsage, setting, fmt::format("'{}' is no size", text), "for example 4GiB, 512MiB or 1.5GB");
  }
  return static_cast<uint64_t>(value * scale);
}

}  // namespace potstill
