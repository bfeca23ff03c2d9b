// JSON lines: one object a line, split at "\n" only (some texts hold U+0085 or U+2028), errors with file and line.
#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace potstill {

struct JsonlRecord {
  nlohmann::json value;
  int64_t line = 0;  // 1-based
};

// All records; blank lines are skipped. Throws Error(kIo | kFormat) with "file:line".
std::vector<JsonlRecord> read_jsonl(const std::filesystem::path& path);

// A string field of a record. Throws Error(kInput) "file:line: field 'x' ..." when it is absent or no string.
std::string required_string(const JsonlRecord& record, const std::filesystem::path& path, std::string_view field);

// Parses a whole JSON file; errors name the file and the byte.
nlohmann::json read_json_file(const std::filesystem::path& path);
nlohmann::json parse_json(std::string_view text, std::string_view where);

// A compact line without "\n"; invalid UTF-8 is replaced by U+FFFD rather than refused.
std::string to_json_line(const nlohmann::json& value);

}  // namespace potstill
