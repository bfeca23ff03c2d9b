// Space: the parameters of a search, in Optuna's three kinds and with its JSON spelling, so that its tools read ours.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace potstill {

struct FloatDistribution {
  double low = 0.0, high = 1.0;
  bool log = false;
  std::optional<double> step = std::nullopt;  // low, low + step, …, high
  bool operator==(const FloatDistribution&) const = default;
};

struct IntDistribution {
  int64_t low = 0, high = 1;
  bool log = false;
  int64_t step = 1;
  bool operator==(const IntDistribution&) const = default;
};

struct CategoricalDistribution {
  std::vector<nlohmann::json> choices;  // null, bool, numbers or strings
  bool operator==(const CategoricalDistribution&) const = default;
};

using Distribution = std::variant<FloatDistribution, IntDistribution, CategoricalDistribution>;

// Both numeric kinds in one form; nothing for a categorical one.
struct NumericRange {
  double low, high, step;  // step 0 = continuous
  bool log;
};
std::optional<NumericRange> numeric_range(const Distribution& distribution);

// Throws Error(kUsage): bounds in the wrong order, log of a range that reaches 0, log with step, a high that is no
// multiple of step from low, no choices, the same choice twice.
void check_distribution(const Distribution& distribution, std::string_view where);

bool is_single(const Distribution& distribution);  // only one value: nothing to search

// Optuna's internal representation is one double: the number itself, or the index of the choice. Throws Error(kInput)
// for a value that is not in the distribution.
bool holds(const Distribution& distribution, double internal);
nlohmann::json external_value(const Distribution& distribution, double internal);
double internal_value(const Distribution& distribution, const nlohmann::json& external, std::string_view where);

// {"name": "FloatDistribution", "attributes": {…}}
nlohmann::ordered_json distribution_to_json(const Distribution& distribution);
Distribution distribution_from_json(const nlohmann::json& json, std::string_view where);

using Params = std::map<std::string, double>;  // name -> internal representation
using Space = std::map<std::string, Distribution>;

nlohmann::ordered_json space_to_json(const Space& space);

}  // namespace potstill
