#include "potstill/base/byte_size.h"

#include <fmt/format.h>

#include <cctype>
#include <charconv>
#include <cmath>
#include <string>

#include "potstill/base/error.h"

namespace potstill {

uint64_t parse_byte_size(std::string_view text, std::string_view what) {
  const auto refuse = [&] {
    return Error(ErrorKind::kUsage, what, fmt::format("'{}' is no size", text), "such as 4GiB, 800MB or 512MiB");
  };
  double number = 0;
  const auto [rest, problem] =
      std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  if (problem != std::errc() || !std::isfinite(number) || number < 0) throw refuse();
  std::string unit;
  for (const char* c = rest; c != text.data() + text.size(); ++c) {
    if (*c != ' ') unit += static_cast<char>(std::tolower(static_cast<unsigned char>(*c)));
  }
  double factor = 1;
  if (!unit.empty() && unit != "b") {
    const size_t power = std::string_view("kmgt").find(unit.front());
    const std::string_view tail = std::string_view(unit).substr(1);
    if (power == std::string_view::npos || (!tail.empty() && tail != "b" && tail != "ib")) throw refuse();
    factor = std::pow(tail == "ib" ? 1024.0 : 1000.0, static_cast<double>(power + 1));
  }
  const double bytes = number * factor;
  if (bytes > 1e18) throw refuse();
  return static_cast<uint64_t>(bytes);
}

}  // namespace potstill
