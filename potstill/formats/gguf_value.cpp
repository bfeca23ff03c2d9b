// GgufValue, and the lookups of GgufFile.
#include <fmt/format.h>

#include <algorithm>

#include "potstill/base/error.h"
#include "potstill/formats/gguf.h"

namespace potstill {

GgufValue GgufValue::u32(uint64_t value) { return {.type = GgufType::kU32, .value = value}; }
GgufValue GgufValue::f32(double value) { return {.type = GgufType::kF32, .value = value}; }
GgufValue GgufValue::boolean(bool value) { return {.type = GgufType::kBool, .value = value}; }
GgufValue GgufValue::string(std::string value) { return {.type = GgufType::kString, .value = std::move(value)}; }
GgufValue GgufValue::strings(std::vector<std::string> values) {
  return {.type = GgufType::kArray, .element_type = GgufType::kString, .value = std::move(values)};
}
GgufValue GgufValue::i32s(std::vector<int64_t> values) {
  return {.type = GgufType::kArray, .element_type = GgufType::kI32, .value = std::move(values)};
}

std::optional<int64_t> GgufValue::as_integer() const {
  if (const auto* number = std::get_if<int64_t>(&value)) return *number;
  const auto* number = std::get_if<uint64_t>(&value);
  if (number == nullptr || *number > INT64_MAX) return std::nullopt;
  return static_cast<int64_t>(*number);
}

std::optional<double> GgufValue::as_number() const {
  if (const auto* number = std::get_if<double>(&value)) return *number;
  if (const auto number = as_integer()) return static_cast<double>(*number);
  return std::nullopt;
}

std::optional<bool> GgufValue::as_bool() const {
  const auto* flag = std::get_if<bool>(&value);
  return flag != nullptr ? std::optional(*flag) : std::nullopt;
}

const std::string* GgufValue::as_string() const { return std::get_if<std::string>(&value); }

const std::vector<std::string>* GgufValue::as_strings() const { return std::get_if<std::vector<std::string>>(&value); }

std::optional<std::vector<int64_t>> GgufValue::as_integers() const {
  if (const auto* numbers = std::get_if<std::vector<int64_t>>(&value)) return *numbers;
  const auto* numbers = std::get_if<std::vector<uint64_t>>(&value);
  if (numbers == nullptr) return std::nullopt;
  std::vector<int64_t> converted;
  converted.reserve(numbers->size());
  for (const uint64_t number : *numbers) {
    if (number > INT64_MAX) return std::nullopt;
    converted.push_back(static_cast<int64_t>(number));
  }
  return converted;
}

GgufFile::GgufFile(const std::filesystem::path& path)
    : file_(path), contents_(parse_gguf(file_.bytes(), path.string())) {
  for (size_t i = 0; i < contents_.tensors.size(); ++i) tensor_index_.emplace_back(contents_.tensors[i].name, i);
  std::ranges::sort(tensor_index_);
}

const TensorView* GgufFile::find_tensor(std::string_view name) const {
  const auto found =
      std::ranges::lower_bound(tensor_index_, name, std::ranges::less{}, &decltype(tensor_index_)::value_type::first);
  return found != tensor_index_.end() && found->first == name ? &contents_.tensors[found->second] : nullptr;
}

const GgufValue* GgufFile::find(std::string_view key) const {
  const auto found = std::ranges::find(contents_.metadata, key, &GgufMetadata::value_type::first);
  return found == contents_.metadata.end() ? nullptr : &found->second;
}

std::optional<int64_t> GgufFile::integer(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  const auto converted = value->as_integer();
  if (!converted) wrong_kind(key, "an integer");
  return converted;
}

std::optional<double> GgufFile::number(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  const auto converted = value->as_number();
  if (!converted) wrong_kind(key, "a number");
  return converted;
}

std::optional<bool> GgufFile::boolean(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  const auto converted = value->as_bool();
  if (!converted) wrong_kind(key, "a bool");
  return converted;
}

std::optional<std::string> GgufFile::string(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  const std::string* text = value->as_string();
  if (text == nullptr) wrong_kind(key, "a string");
  return *text;
}

const std::vector<std::string>* GgufFile::strings(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return nullptr;
  const auto* texts = value->as_strings();
  if (texts == nullptr) wrong_kind(key, "an array of strings");
  return texts;
}

std::optional<std::vector<int64_t>> GgufFile::integers(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  auto converted = value->as_integers();
  if (!converted) wrong_kind(key, "an array of integers");
  return converted;
}

int64_t GgufFile::require_integer(std::string_view key) const {
  if (const auto value = integer(key)) return *value;
  missing(key);
}

double GgufFile::require_number(std::string_view key) const {
  if (const auto value = number(key)) return *value;
  missing(key);
}

std::string GgufFile::require_string(std::string_view key) const {
  if (auto value = string(key)) return *std::move(value);
  missing(key);
}

void GgufFile::wrong_kind(std::string_view key, std::string_view wanted) const {
  throw Error(ErrorKind::kFormat, where(), fmt::format("key '{}' is not {}", key, wanted));
}

void GgufFile::missing(std::string_view key) const {
  throw Error(ErrorKind::kFormat, where(), fmt::format("missing key '{}'", key),
              "the file is no language model, or was written by an old converter; convert it again");
}

}  // namespace potstill
