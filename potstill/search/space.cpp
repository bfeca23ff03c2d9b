#include "potstill/search/space.h"

#include <fmt/format.h>

#include <cmath>

#include "potstill/base/error.h"

namespace potstill {
namespace {

// Optuna's own tolerance for "high is low + k * step".
bool is_multiple(double length, double step) {
  const double steps = length / step;
  return std::abs(steps - std::round(steps)) < 1e-8;
}

void check_range(const NumericRange& range, std::string_view where) {
  const auto refuse = [&](const std::string& what) { throw Error(ErrorKind::kUsage, where, what); };
  if (!std::isfinite(range.low) || !std::isfinite(range.high)) refuse("the bounds of a range must be finite numbers");
  if (range.low > range.high) refuse(fmt::format("the range [{}, {}] is upside down", range.low, range.high));
  if (range.log && range.low <= 0.0) {
    refuse(fmt::format("a logarithmic range must lie above 0 but begins at {}", range.low));
  }
  if (range.step < 0.0 || !std::isfinite(range.step)) refuse(fmt::format("step {} must be positive", range.step));
  if (range.step > 0.0 && !is_multiple(range.high - range.low, range.step)) {
    refuse(fmt::format("{} is not reached from {} in steps of {}", range.high, range.low, range.step));
  }
}

bool contains(const NumericRange& range, double value) {
  if (!(value >= range.low && value <= range.high)) return false;
  return range.step == 0.0 || is_multiple(value - range.low, range.step);
}

double require_number(const nlohmann::json& attributes, const char* key, std::string_view where) {
  if (!attributes.contains(key) || !attributes[key].is_number()) {
    throw Error(ErrorKind::kFormat, where, fmt::format("the distribution has no number '{}'", key));
  }
  return attributes[key].get<double>();
}

}  // namespace

std::optional<NumericRange> numeric_range(const Distribution& distribution) {
  if (const auto* f = std::get_if<FloatDistribution>(&distribution)) {
    return NumericRange{.low = f->low, .high = f->high, .step = f->step.value_or(0.0), .log = f->log};
  }
  if (const auto* i = std::get_if<IntDistribution>(&distribution)) {
    return NumericRange{.low = static_cast<double>(i->low),
                        .high = static_cast<double>(i->high),
                        .step = static_cast<double>(i->step),
                        .log = i->log};
  }
  return std::nullopt;
}

void check_distribution(const Distribution& distribution, std::string_view where) {
  if (const auto range = numeric_range(distribution)) {
    check_range(*range, where);
    const auto* f = std::get_if<FloatDistribution>(&distribution);
    const auto* i = std::get_if<IntDistribution>(&distribution);
    if ((f != nullptr && f->log && f->step) || (i != nullptr && i->log && i->step != 1)) {
      throw Error(ErrorKind::kUsage, where, "a range cannot be logarithmic and stepped at once");
    }
    if ((f != nullptr && f->step && *f->step == 0.0) || (i != nullptr && i->step == 0)) {
      throw Error(ErrorKind::kUsage, where, "step 0 must be positive");
    }
    return;
  }
  const auto& choices = std::get<CategoricalDistribution>(distribution).choices;
  if (choices.empty()) throw Error(ErrorKind::kUsage, where, "there is nothing to choose from");
  for (size_t i = 0; i < choices.size(); ++i) {
    if (choices[i].is_structured()) throw Error(ErrorKind::kUsage, where, "a choice must be a number, text or truth");
    for (size_t j = 0; j < i; ++j) {
      if (choices[i] == choices[j]) {
        throw Error(ErrorKind::kUsage, where, fmt::format("the choice {} stands there twice", choices[i].dump()));
      }
    }
  }
}

bool is_single(const Distribution& distribution) {
  if (const auto range = numeric_range(distribution)) return range->low == range->high;
  return std::get<CategoricalDistribution>(distribution).choices.size() == 1;
}

bool holds(const Distribution& distribution, double internal) {
  if (const auto range = numeric_range(distribution)) return contains(*range, internal);
  const auto count = std::get<CategoricalDistribution>(distribution).choices.size();
  return internal >= 0.0 && internal < static_cast<double>(count) && internal == std::floor(internal);
}

nlohmann::json external_value(const Distribution& distribution, double internal) {
  if (std::holds_alternative<FloatDistribution>(distribution)) return internal;
  if (std::holds_alternative<IntDistribution>(distribution)) return static_cast<int64_t>(std::llround(internal));
  const auto& choices = std::get<CategoricalDistribution>(distribution).choices;
  if (!holds(distribution, internal))
    throw Error(ErrorKind::kInput, "study", fmt::format("{} is not the index of a choice", internal));
  return choices[static_cast<size_t>(internal)];
}

double internal_value(const Distribution& distribution, const nlohmann::json& external, std::string_view where) {
  if (const auto range = numeric_range(distribution)) {
    if (external.is_number() && contains(*range, external.get<double>())) return external.get<double>();
    throw Error(ErrorKind::kInput, where,
                fmt::format("{} is not in [{}, {}]{}", external.dump(), range->low, range->high,
                            range->step == 0.0 ? "" : fmt::format(" in steps of {}", range->step)));
  }
  const auto& choices = std::get<CategoricalDistribution>(distribution).choices;
  for (size_t i = 0; i < choices.size(); ++i) {
    if (choices[i] == external) return static_cast<double>(i);
  }
  throw Error(ErrorKind::kInput, where,
              fmt::format("{} is none of {}", external.dump(), nlohmann::json(choices).dump()));
}

nlohmann::ordered_json distribution_to_json(const Distribution& distribution) {
  if (const auto* f = std::get_if<FloatDistribution>(&distribution)) {
    nlohmann::ordered_json step;
    if (f->step) step = *f->step;
    return {{"name", "FloatDistribution"},
            {"attributes", {{"step", step}, {"low", f->low}, {"high", f->high}, {"log", f->log}}}};
  }
  if (const auto* i = std::get_if<IntDistribution>(&distribution)) {
    return {{"name", "IntDistribution"},
            {"attributes", {{"log", i->log}, {"step", i->step}, {"low", i->low}, {"high", i->high}}}};
  }
  nlohmann::ordered_json choices = nlohmann::ordered_json::array();
  for (const auto& choice : std::get<CategoricalDistribution>(distribution).choices) choices.emplace_back(choice);
  nlohmann::ordered_json json = {{"name", "CategoricalDistribution"}};
  json["attributes"]["choices"] = std::move(choices);
  return json;
}

Distribution distribution_from_json(const nlohmann::json& json, std::string_view where) {
  if (!json.is_object() || !json.contains("attributes") || !json["attributes"].is_object()) {
    throw Error(ErrorKind::kFormat, where, "a distribution must be an object with 'name' and 'attributes'");
  }
  const auto& attributes = json["attributes"];
  const std::string name = json.contains("name") && json["name"].is_string() ? json["name"].get<std::string>() : "";
  const bool log = attributes.contains("log") && attributes["log"].is_boolean() && attributes["log"].get<bool>();
  Distribution result;
  if (name == "FloatDistribution") {
    FloatDistribution f{
        .low = require_number(attributes, "low", where), .high = require_number(attributes, "high", where), .log = log};
    if (attributes.contains("step") && !attributes["step"].is_null())
      f.step = require_number(attributes, "step", where);
    result = f;
  } else if (name == "IntDistribution") {
    result = IntDistribution{.low = static_cast<int64_t>(require_number(attributes, "low", where)),
                             .high = static_cast<int64_t>(require_number(attributes, "high", where)),
                             .log = log,
                             .step = static_cast<int64_t>(require_number(attributes, "step", where))};
  } else if (name == "CategoricalDistribution" && attributes.contains("choices") && attributes["choices"].is_array()) {
    result = CategoricalDistribution{attributes["choices"].get<std::vector<nlohmann::json>>()};
  } else {
    throw Error(ErrorKind::kFormat, where, fmt::format("unknown distribution '{}'", name),
                "known: FloatDistribution, IntDistribution, CategoricalDistribution");
  }
  check_distribution(result, where);
  return result;
}

nlohmann::ordered_json space_to_json(const Space& space) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const auto& [name, distribution] : space) json[name] = distribution_to_json(distribution);
  return json;
}

}  // namespace potstill
