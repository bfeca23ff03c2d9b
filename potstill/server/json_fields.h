// JsonFields: a request's fields with their types and ranges checked, and an error for each field that nobody asked
// for.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace potstill::server {

class JsonFields {
 public:
  // Throws ApiError(400) when it is no object. path: of the object in the request, "" = the request itself.
  JsonFields(const nlohmann::ordered_json& object, std::string path);

  // A field that is absent or null gives nothing. Throws ApiError(400) with the field's name for another type or value.
  const nlohmann::ordered_json* any(const std::string& name);
  std::optional<bool> boolean(const std::string& name);
  std::optional<int64_t> integer(const std::string& name, int64_t minimum, int64_t maximum);
  std::optional<double> number(const std::string& name, double minimum, double maximum);
  std::optional<std::string> string(const std::string& name);
  const nlohmann::ordered_json* array(const std::string& name);
  const nlohmann::ordered_json* object(const std::string& name);

  // Fields that say nothing to a local model: taken and left.
  void ignore(std::initializer_list<const char*> names);
  // Throws ApiError(400) for a field that was not asked for: it would not have done what the client thinks.
  void finish() const;

  std::string at(const std::string& name) const;  // "messages[1].content"
  [[noreturn]] void refuse(const std::string& name, const std::string& what) const;

 private:
  const nlohmann::ordered_json& object_;
  std::string path_;
  std::set<std::string> known_;
};

}  // namespace potstill::server
