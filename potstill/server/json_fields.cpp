#include "potstill/server/json_fields.h"

#include <fmt/format.h>

#include "potstill/base/error.h"
#include "potstill/server/api_error.h"

namespace potstill::server {

JsonFields::JsonFields(const nlohmann::ordered_json& object, std::string path)
    : object_(object), path_(std::move(path)) {
  if (!object.is_object()) {
    throw ApiError(
        400, fmt::format("{} is {} but must be an object", path_.empty() ? "the body" : path_, object.type_name()),
        path_);
  }
}

std::string JsonFields::at(const std::string& name) const { return path_.empty() ? name : path_ + "." + name; }

void JsonFields::refuse(const std::string& name, const std::string& what) const {
  throw ApiError(400, fmt::format("{} {}", at(name), what), at(name));
}

const nlohmann::ordered_json* JsonFields::any(const std::string& name) {
  known_.insert(name);
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

std::optional<bool> JsonFields::boolean(const std::string& name) {
  const auto* value = any(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) refuse(name, "must be true or false");
  return value->get<bool>();
}

std::optional<int64_t> JsonFields::integer(const std::string& name, int64_t minimum, int64_t maximum) {
  const auto* value = any(name);
  if (value == nullptr) return std::nullopt;
  // 5.0 is an integer to some clients; larger numbers than int64 are not.
  const double as_double = value->is_number() ? value->get<double>() : -1e300;
  if (as_double != static_cast<double>(static_cast<int64_t>(std::max(-9e18, std::min(9e18, as_double)))) ||
      as_double < static_cast<double>(minimum) || as_double > static_cast<double>(maximum)) {
    refuse(name, fmt::format("must be an integer in [{}, {}]", minimum, maximum));
  }
  return value->is_number_float() ? static_cast<int64_t>(as_double) : value->get<int64_t>();
}

std::optional<double> JsonFields::number(const std::string& name, double minimum, double maximum) {
  const auto* value = any(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number() || !(value->get<double>() >= minimum && value->get<double>() <= maximum)) {
    refuse(name, fmt::format("must be a number in [{}, {}]", minimum, maximum));
  }
  return value->get<double>();
}

std::optional<std::string> JsonFields::string(const std::string& name) {
  const auto* value = any(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) refuse(name, "must be a string");
  return value->get<std::string>();
}

const nlohmann::ordered_json* JsonFields::array(const std::string& name) {
  const auto* value = any(name);
  if (value != nullptr && !value->is_array()) refuse(name, "must be an array");
  return value;
}

const nlohmann::ordered_json* JsonFields::object(const std::string& name) {
  const auto* value = any(name);
  if (value != nullptr && !value->is_object()) refuse(name, "must be an object");
  return value;
}

void JsonFields::ignore(std::initializer_list<const char*> names) {
  for (const char* name : names) known_.insert(name);
}

void JsonFields::finish() const {
  for (const auto& entry : object_.items()) {
    if (known_.count(entry.key()) > 0) continue;
    const std::string near = nearest_name(entry.key(), known_);
    refuse(entry.key(), near.empty()
                            ? "is a field that this server does not know"
                            : fmt::format("is a field that this server does not know; did you mean '{}'?", near));
  }
}

}  // namespace potstill::server
