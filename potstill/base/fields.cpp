#include "potstill/base/fields.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace potstill {

void check_field(std::string_view where, std::string_view name, double value, const FieldLimits& limits) {
  if (value >= limits.min && value <= limits.max) return;  // NaN fails both
  throw Error(ErrorKind::kUsage, where,
              fmt::format("'{}' is {} but must be {}", name, value,
                          limits.max == std::numeric_limits<double>::infinity()
                              ? fmt::format("at least {}", limits.min)
                              : fmt::format("in [{}, {}]", limits.min, limits.max)));
}

void check_field(std::string_view where, std::string_view name, const std::string& value, const FieldLimits& limits) {
  if (limits.choices.empty() || std::ranges::find(limits.choices, value) != limits.choices.end()) return;
  const std::string near = nearest_name(value, limits.choices);
  throw Error(ErrorKind::kUsage, where,
              fmt::format("'{}' is '{}' but must be one of {}", name, value, fmt::join(limits.choices, ", ")),
              near.empty() ? "" : fmt::format("did you mean '{}'?", near));
}

}  // namespace potstill
