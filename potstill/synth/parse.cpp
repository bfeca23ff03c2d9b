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

size_t skip_spaces(std::string_view text, size_t at) {
  while (at < text.size() && is_space(text[at])) ++at;
  return at;
}

// A JSON string that begins at `at`; moves past it. Line ends inside it, which JSON forbids, are taken as blanks.
std::optional<std::string> read_string(std::string_view text, size_t& at) {
  if (at >= text.size() || text[at] != '"') return std::nullopt;
  std::string literal = "\"";
  for (size_t i = at + 1; i < text.size(); ++i) {
    literal += static_cast<unsigned char>(text[i]) < ' ' ? ' ' : text[i];
    if (text[i] == '\\' && i + 1 < text.size()) {
      literal += text[++i];
    } else if (text[i] == '"') {
      at = i + 1;
      const auto value = nlohmann::json::parse(literal, nullptr, /*allow_exceptions=*/false);
      return value.is_string() ? std::optional(value.get<std::string>()) : std::nullopt;
    }
  }
  return std::nullopt;  // cut off
}

// Where the value of `key` begins: after "key" or key, and a colon.
size_t value_of_key(std::string_view text, std::string_view key) {
  for (size_t at = text.find(key); at != std::string_view::npos; at = text.find(key, at + 1)) {
    const bool starts_a_word = at == 0 || !std::isalnum(static_cast<unsigned char>(text[at - 1]));
    size_t after = at + key.size();
    if (after < text.size() && (text[after] == '"' || text[after] == '\'')) ++after;
    after = skip_spaces(text, after);
    if (starts_a_word && after < text.size() && text[after] == ':') return skip_spaces(text, after + 1);
  }
  return std::string_view::npos;
}

void salvage_part(std::string_view text, const std::string& key, ItemParts& parts) {
  size_t at = value_of_key(text, key);
  if (at >= text.size()) return;
  if (const auto value = read_string(text, at)) {
    parts.texts[key] = *value;
    return;
  }
  if (text[at] != '[') return;
  std::vector<std::string> items;
  for (++at; at < text.size();) {
    at = skip_spaces(text, at);
    const auto item = read_string(text, at);
    if (!item) break;
    items.push_back(*item);
    at = skip_spaces(text, at);
    at += at < text.size() && text[at] == ',';
  }
  if (!items.empty()) parts.lists[key] = std::move(items);
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

std::vector<std::string> parse_options(std::string_view text, bool truncated) {
  std::vector<std::string_view> pieces;
  const char separator = text.find(';') != std::string_view::npos ? ';' : '\n';
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(separator, begin), text.size());
    if (const auto piece = trim(text.substr(begin, end - begin)); !piece.empty()) pieces.push_back(piece);
    begin = end + 1;
  }
  if (truncated && !pieces.empty()) pieces.pop_back();
  std::vector<std::string> options;
  for (const auto piece : pieces) {
    if (auto option = clean_answer(piece); !option.empty()) options.push_back(std::move(option));
  }
  return options;
}

ItemParts parse_item(std::string_view text, std::span<const std::string> keys) {
  ItemParts parts;
  if (const auto object = last_json_object(text)) {
    for (const auto& key : keys) {
      const auto found = object->find(key);
      if (found == object->end()) continue;
      const auto is_text = [](const nlohmann::json& value) { return value.is_string(); };
      if (found->is_string()) parts.texts[key] = found->get<std::string>();
      if (found->is_array() && std::all_of(found->begin(), found->end(), is_text))
        parts.lists[key] = found->get<std::vector<std::string>>();
    }
    if (!parts.texts.empty() || !parts.lists.empty()) return parts;
  }
  parts.repaired = true;
  for (const auto& key : keys) salvage_part(text, key, parts);
  return parts;
}

std::optional<int64_t> parse_choice(std::string_view text, std::span<const std::string> options) {
  const auto plain = [](std::string_view each) {
    std::string folded = lower(clean_answer(each));
    while (!folded.empty() && std::ispunct(static_cast<unsigned char>(folded.back()))) folded.pop_back();
    return folded;
  };
  const std::string whole = plain(text);
  std::set<int64_t> named;
  for (size_t i = 0; i < options.size(); ++i) {
    if (plain(options[i]) == whole) return static_cast<int64_t>(i);
  }
  // A letter that stands for itself: in capitals and followed by no word, but for "A" which may be an article.
  const std::string_view trimmed = trim(text);
  for (size_t i = 0; i < trimmed.size(); ++i) {
    const auto letter = static_cast<int64_t>(std::toupper(static_cast<unsigned char>(trimmed[i])) - 'A');
    const auto is_word = [&](size_t at) {
      return at < trimmed.size() && (std::isalnum(static_cast<unsigned char>(trimmed[at])) || trimmed[at] == '\'');
    };
    if (letter < 0 || letter >= static_cast<int64_t>(options.size()) || is_word(i + 1) || (i > 0 && is_word(i - 1)))
      continue;
    const char next = i + 1 < trimmed.size() ? trimmed[i + 1] : '\0', before = i > 0 ? trimmed[i - 1] : '\0';
    const bool closed = next == '\0' || next == '.' || next == ')' || next == ':' || next == '\n' || next == '*';
    const bool small = std::islower(static_cast<unsigned char>(trimmed[i])) != 0;
    if (closed && (!small || before == '(' || trimmed.size() <= 2)) named.insert(letter);
  }
  if (named.size() == 1) return *named.begin();
  return std::nullopt;
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
