#include "potstill/stages/audit.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "potstill/base/jsonl.h"
#include "potstill/base/rng.h"

namespace potstill {
namespace {

std::string indented(const std::string& text) {
  std::string result = "    ";
  for (const char c : text) {
    result += c;
    if (c == '\n') result += "    ";
  }
  return result;
}

void add_numbers(std::string& text, const nlohmann::json& record, const char* key) {
  const auto numbers = record.find(key);
  if (numbers == record.end() || numbers->empty()) return;
  text += fmt::format("  {:<9}", key);
  for (const auto& [name, value] : numbers->items()) {
    if (value.is_number()) text += fmt::format(" {} {:.2f} ", name, value.get<double>());
  }
  text += '\n';
}

std::string shown(const nlohmann::json& record, size_t line) {
  const auto text_of = [&](const char* key) { return record.value(key, std::string()); };
  std::string text =
      fmt::format("── line {} · {} · {} · {}\n", line, text_of("subtopic"), text_of("split"), text_of("id"));
  text += indented(text_of("instruction")) + "\n";
  if (!text_of("input").empty()) text += "\n" + indented(text_of("input")) + "\n";
  text += "  answer\n" + indented(text_of("output")) + "\n";
  if (record.contains("choices") && record["choices"].is_array()) {
    text += "  options\n";
    char letter = 'A';
    for (const auto& option : record["choices"]) {
      text += fmt::format("    {} {}. {}\n", std::string(1, letter) == text_of("answer_key") ? "→" : " ", letter,
                          option.is_string() ? option.get<std::string>() : option.dump());
      ++letter;
    }
  }
  for (const char* rests_on : {"fact", "passage"}) {
    if (!text_of(rests_on).empty()) text += fmt::format("  {}\n{}\n", rests_on, indented(text_of(rests_on)));
  }
  add_numbers(text, record, "scores");
  add_numbers(text, record, "measured");
  if (record.contains("blind") && record["blind"].is_object()) {
    text += fmt::format("  blind     agreement {:.2f}, answered: {}\n", record["blind"].value("agreement", 0.0),
                        record["blind"].value("answer", std::string()));
  }
  if (!text_of("critique").empty()) text += fmt::format("  critique  {}\n", text_of("critique"));
  if (record.contains("raw") && record["raw"].is_object()) {
    text += "  raw      ";
    for (const auto& [what, source] : record["raw"].items()) {
      const auto& first = source.is_array() ? source.front() : source;
      text += fmt::format(" {} {} ", what, first.value("place", std::string()));
    }
    text += '\n';
  }
  return text;
}

}  // namespace

std::string audit_text(const std::filesystem::path& folder, int64_t count, uint64_t seed) {
  const auto records = read_jsonl(folder / "D_gen.jsonl");
  std::vector<size_t> order(records.size());
  std::iota(order.begin(), order.end(), size_t{0});
  Rng(seed, "synth/audit").shuffle(order);
  order.resize(std::min(order.size(), static_cast<size_t>(std::max<int64_t>(count, 0))));
  std::ranges::sort(order);
  std::string text = fmt::format("{} of {} pairs\n\n", order.size(), records.size());
  for (const size_t i : order) text += shown(records[i].value, static_cast<size_t>(records[i].line)) + "\n";
  return text;
}

}  // namespace potstill
