#include "potstill/formats/weight_source.h"

#include <fmt/format.h>

#include <algorithm>

#include "potstill/base/checked_math.h"
#include "potstill/base/error.h"

namespace potstill {

const WeightInfo* WeightSource::find(std::string_view name) const {
  const auto& all = weights();
  const auto found = std::ranges::lower_bound(all, name, std::ranges::less{}, &WeightInfo::name);
  return found != all.end() && found->name == name ? &*found : nullptr;
}

const WeightInfo& WeightSource::require(std::string_view name) const {
  if (const WeightInfo* info = find(name)) return *info;
  throw Error(ErrorKind::kFormat, where(), fmt::format("missing tensor '{}'", name),
              "the checkpoint is incomplete or is of another architecture than its config says");
}

std::vector<float> WeightSource::read(std::string_view name) const {
  const WeightInfo& info = require(name);
  std::vector<float> values(static_cast<size_t>(num_elements(info.shape).value()));
  read_rows(name, 0, info.shape.size() > 1 ? info.shape[0] : 1, values);
  return values;
}

}  // namespace potstill
