#include "potstill/base/jsonl.h"

#include <fmt/format.h>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"

namespace potstill {

nlohmann::json parse_json(std::string_view text, std::string_view where) {
  // nlohmann's parser recurses into nested values only by an explicit stack, so depth costs memory, not the call stack.
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::parse_error& error) {
    throw Error(ErrorKind::kFormat, fmt::format("{} @{}", where, error.byte), "is not valid JSON",
                "look at the byte that is named; the file may be truncated");
  }
}

nlohmann::json read_json_file(const std::filesystem::path& path) { return parse_json(read_file(path), path.string()); }

std::vector<JsonlRecord> read_jsonl(const std::filesystem::path& path) {
  const std::string text = read_file(path);
  std::vector<JsonlRecord> records;
  int64_t line = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    ++line;
    const std::string_view content = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    if (content.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = fmt::format("{}:{}", path.string(), line);
    records.push_back({.value = parse_json(content, where), .line = line});
    if (!records.back().value.is_object()) throw Error(ErrorKind::kFormat, where, "is not a JSON object");
  }
  return records;
}

std::string required_string(const JsonlRecord& record, const std::filesystem::path& path, std::string_view field) {
  const auto found = record.value.find(std::string(field));
  if (found == record.value.end() || !found->is_string()) {
    throw Error(ErrorKind::kInput, fmt::format("{}:{}", path.string(), record.line),
                fmt::format("field '{}' is {}", field, found == record.value.end() ? "missing" : "not a string"));
  }
  return found->get<std::string>();
}

std::string to_json_line(const nlohmann::json& value) {
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace potstill
