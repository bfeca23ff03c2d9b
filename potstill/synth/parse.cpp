#include "potstill/synth/parse.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

namespace potstill {
namespace {

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

std::string_view trim(std::string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

std::string lower(std::string_view text) {
  std::string result(text);
  for (auto& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

std::string collapse_spaces(std::string_view text) {
  std::string result;
  for (const char c : trim(text)) {
    if (!is_space(c)) {
      result += c;
    } else if (!result.empty() && result.back() != ' ') {
      result += ' ';
    }
  }
  return result;
}

// "12. " or "3) " or "- " or "• " at the front: its length, else 0.
size_t marker_length(std::string_view text) {
  size_t digits = 0;
  while (digits < text.size() && digits < 4 && std::isdigit(static_cast<unsigned char>(text[digits]))) ++digits;
  if (digits > 0) {
    const bool closed = digits + 1 < text.size() && (text[digits] == '.' || text[digits] == ')' || text[digits] == ':');
    return closed && is_space(text[digits + 1]) ? digits + 1 : 0;
  }
  for (const std::string_view bullet : {"-", "*", "\xE2\x80\xA2"}) {
    if (text.starts_with(bullet) && text.size() > bullet.size() && is_space(text[bullet.size()])) return bullet.size();
  }
  return 0;
}

size_t label_length(std::string_view text) {
  const std::string head = lower(text.substr(0, 16));
  for (const std::string_view label : {"question:", "answer:", "topic:", "subtopic:", "q:", "a:"}) {
    if (head.starts_with(label)) return label.size();
  }
  return 0;
}

// One pair of marks that embraces the whole text.
bool unwrap(std::string_view& text, std::string_view open, std::string_view close) {
  if (text.size() <= open.size() + close.size() || !text.starts_with(open) || !text.ends_with(close)) return false;
  const std::string_view inner = text.substr(open.size(), text.size() - open.size() - close.size());
  if (inner.find(open) != std::string_view::npos || inner.find(close) != std::string_view::npos) return false;
  text = trim(inner);
  return true;
}

size_t count_words(std::string_view text) {
  size_t words = 0;
  for (size_t i = 0; i < text.size(); ++i) words += !is_space(text[i]) && (i == 0 || is_space(text[i - 1]));
  return words;
}

// The last balanced object that is valid JSON; braces inside strings do not count.
std::optional<nlohmann::json> last_json_object(std::string_view text) {
  for (size_t begin = text.rfind('{'); begin != std::string_view::npos;
       begin = begin == 0 ? std::string_view::npos : text.rfind('{', begin - 1)) {
    int depth = 0;
    bool in_string = false;
    for (size_t i = begin; i < text.size(); ++i) {
      const char c = text[i];
      if (in_string) {
        i += c == '\\';
        in_string = c != '"';
        continue;
      }
      in_string = c == '"';
      depth += c == '{';
      depth -= c == '}';
      if (depth > 0) continue;
      auto value = nlohmann::json::parse(text.substr(begin, i - begin + 1), nullptr, /*allow_exceptions=*/false);
      // A brace inside a string starts no object; look further to the left.
      if (value.is_object() && !value.empty()) return value;
      break;
    }
  }
  return std::nullopt;
}

std::optional<double> read_score(const nlohmann::json& value) {
  double score = 0.0;
  if (value.is_number()) {
    score = value.get<double>();
  } else if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), score);
    const std::string_view rest(end, static_cast<size_t>(text.data() + text.size() - end));
    if (error != std::errc() || (!rest.empty() && rest != "/5")) return std::nullopt;
  } else {
    return std::nullopt;
  }
  if (!(score >= 1.0 && score <= 5.0)) return std::nullopt;  // NaN too
  return score;
}

}  // namespace

std::string clean_answer(std::string_view text) {
  text = trim(text);
  for (bool changed = true; changed && !text.empty();) {
    const size_t before = text.size();
    text = trim(text.substr(label_length(text)));
    text = trim(text.substr(marker_length(text)));
    for (const auto& [open, close] :
         {std::pair{"\"", "\""}, {"\xE2\x80\x9C", "\xE2\x80\x9D"}, {"**", "**"}, {"`", "`"}}) {
      unwrap(text, open, close);
    }
    changed = text.size() != before;
  }
  return collapse_spaces(text);
}

std::vector<std::string> parse_list(std::string_view text, bool truncated, size_t max_words) {
  std::vector<std::string_view> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    if (const auto line = trim(text.substr(begin, end - begin)); !line.empty()) lines.push_back(line);
    begin = end + 1;
  }
  if (truncated && !lines.empty()) lines.pop_back();
  const bool marked = std::ranges::any_of(lines, [](std::string_view line) { return marker_length(line) > 0; });
  std::vector<std::string> items;
  std::set<std::string> seen;
  for (const auto line : lines) {
    if (marked && marker_length(line) == 0) continue;  // "Here are ten topics:"
    std::string item = clean_answer(line);
    while (!item.empty() && (item.back() == '.' || item.back() == ',' || item.back() == ';')) item.pop_back();
    const auto is_letter = [](char c) {
      return std::isalpha(static_cast<unsigned char>(c)) || static_cast<signed char>(c) < 0;
    };
    if (!std::ranges::any_of(item, is_letter) || item.back() == ':' || count_words(item) > max_words) continue;
    if (seen.insert(lower(item)).second) items.push_back(std::move(item));
  }
  return items;
}

std::optional<Critique> parse_critique(std::string_view text, std::span<const std::string> criteria) {
  const auto object = last_json_object(text);
  if (!object) return std::nullopt;
  Critique critique;
  for (const auto& name : criteria) {
    const auto found = object->find(name);
    if (found == object->end()) return std::nullopt;
    const auto score = read_score(*found);
    if (!score) return std::nullopt;
    critique.scores[name] = *score;
  }
  if (const auto reason = object->find("reason"); reason != object->end() && reason->is_string()) {
    critique.reason = reason->get<std::string>();
  }
  return critique;
}

}  // namespace potstill
