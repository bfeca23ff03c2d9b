#include "potstill/lm/model_origin.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "potstill/base/atomic_file.h"
#include "potstill/formats/gguf_checkpoint.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kOwnTag = "potstill";

std::string trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\r')) text.remove_suffix(1);
  if (text.size() >= 2 && (text.front() == '"' || text.front() == '\'') && text.front() == text.back()) {
    text = text.substr(1, text.size() - 2);
  }
  return std::string(text);
}

// The words of "[a, b]" or of a plain value.
std::vector<std::string> words_of(const std::string& value) {
  if (value.empty()) return {};
  if (value.front() != '[' || value.back() != ']') return {value};
  std::vector<std::string> words;
  const std::string_view inside = std::string_view(value).substr(1, value.size() - 2);
  for (size_t begin = 0; begin <= inside.size();) {
    const size_t comma = std::min(inside.find(',', begin), inside.size());
    if (auto word = trimmed(inside.substr(begin, comma - begin)); !word.empty()) words.push_back(std::move(word));
    begin = comma + 1;
  }
  return words;
}

// The front matter of a model card: "key: value", "key: [a, b]" and "key:" with "- item" lines, which is what cards
// hold at their top level. Deeper structure (metrics, widgets) is passed over.
std::map<std::string, std::vector<std::string>> front_matter(const std::string& card) {
  std::map<std::string, std::vector<std::string>> fields;
  if (!card.starts_with("---\n") && !card.starts_with("---\r\n")) return fields;
  std::string key;
  for (size_t begin = card.find('\n') + 1; begin < card.size();) {
    const size_t end = std::min(card.find('\n', begin), card.size());
    const std::string_view line = std::string_view(card).substr(begin, end - begin);
    begin = end + 1;
    if (trimmed(line) == "---") break;
    if (line.starts_with("- ") || line.starts_with("  - ")) {
      const std::string item = trimmed(line.substr(line.find('-') + 1));
      if (!key.empty() && item.find(": ") == std::string::npos) fields[key].push_back(item);
      continue;
    }
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos || line.front() == ' ' || line.front() == '#') continue;
    key = trimmed(line.substr(0, colon));
    fields[key] = words_of(trimmed(line.substr(colon + 1)));
  }
  return fields;
}

BaseModel base_of(const std::string& id) {
  const size_t slash = id.find('/');
  const bool is_id = slash != std::string::npos && id.find('/', slash + 1) == std::string::npos;
  return is_id ? BaseModel{id.substr(slash + 1), id.substr(0, slash)} : BaseModel{id, {}};
}

ModelOrigin origin_of_folder(const fs::path& folder) {
  ModelOrigin origin;
  origin.name = (folder.has_filename() ? folder : folder.parent_path()).filename().string();
  const fs::path card = folder / "README.md";
  if (!fs::exists(card)) return origin;
  const auto fields = front_matter(read_file(card));
  const auto first = [&](const char* key) {
    const auto found = fields.find(key);
    return found == fields.end() || found->second.empty() ? std::string() : found->second.front();
  };
  const auto list = [&](const char* key) {
    const auto found = fields.find(key);
    return found == fields.end() ? std::vector<std::string>() : found->second;
  };
  origin.license = first("license");
  origin.license_name = first("license_name");
  origin.license_link = first("license_link");
  origin.languages = list("language");
  origin.tags = list("tags");
  for (const auto& id : list("base_model")) origin.base_models.push_back(base_of(id));
  origin.by_potstill = std::ranges::find(origin.tags, kOwnTag) != origin.tags.end();
  return origin;
}

ModelOrigin origin_of_gguf(const GgufFile& file, const fs::path& path) {
  const auto string = [&](const std::string& key) { return file.string(key).value_or(""); };
  const auto strings = [&](const char* key) {
    const auto* values = file.strings(key);
    return values == nullptr ? std::vector<std::string>() : *values;
  };
  ModelOrigin origin;
  // the file's name says more than general.name, which converters guess
  origin.name = path.stem().string();
  origin.organization = string("general.organization");
  origin.license = string("general.license");
  origin.license_name = string("general.license.name");
  origin.license_link = string("general.license.link");
  origin.languages = strings("general.languages");
  origin.tags = strings("general.tags");
  const int64_t count = std::clamp<int64_t>(file.integer("general.base_model.count").value_or(0), 0, 64);
  for (int64_t i = 0; i < count; ++i) {
    const std::string prefix = fmt::format("general.base_model.{}.", i);
    BaseModel base{string(prefix + "name"), string(prefix + "organization")};
    if (!base.name.empty()) origin.base_models.push_back(std::move(base));
  }
  origin.by_potstill = string("general.quantized_by").starts_with(kOwnTag) ||
                       std::ranges::find(origin.tags, kOwnTag) != origin.tags.end();
  return origin;
}

void add_list(std::string& text, std::string_view key, const std::vector<std::string>& items) {
  if (items.empty()) return;
  text += fmt::format("{}:\n", key);
  for (const auto& item : items) text += fmt::format("- {}\n", item);
}

}  // namespace

ModelOrigin read_model_origin(const fs::path& model) {
  if (fs::is_directory(model)) return origin_of_folder(model);
  return origin_of_gguf(GgufFile(model), model);
}

ModelOrigin derived_origin(const ModelOrigin& source) {
  ModelOrigin origin = source;
  if (!source.by_potstill) origin.base_models = {{source.name, source.organization}};
  if (std::ranges::find(origin.tags, kOwnTag) == origin.tags.end()) origin.tags.emplace_back(kOwnTag);
  origin.by_potstill = true;
  return origin;
}

GgufMetadata origin_to_gguf(const ModelOrigin& origin) {
  GgufMetadata metadata;
  const auto add = [&](const std::string& key, const std::string& value) {
    if (!value.empty()) metadata.emplace_back(key, GgufValue::string(value));
  };
  add("general.license", origin.license);
  add("general.license.name", origin.license_name);
  add("general.license.link", origin.license_link);
  if (!origin.base_models.empty()) {
    metadata.emplace_back("general.base_model.count", GgufValue::u32(origin.base_models.size()));
  }
  for (size_t i = 0; i < origin.base_models.size(); ++i) {
    const auto& base = origin.base_models[i];
    const std::string prefix = fmt::format("general.base_model.{}.", i);
    add(prefix + "name", base.name);
    add(prefix + "organization", base.organization);
    if (!base.organization.empty()) add(prefix + "repo_url", "https://huggingface.co/" + base.id());
  }
  if (!origin.tags.empty()) metadata.emplace_back("general.tags", GgufValue::strings(origin.tags));
  if (!origin.languages.empty()) metadata.emplace_back("general.languages", GgufValue::strings(origin.languages));
  return metadata;
}

std::string model_card(const ModelOrigin& origin, std::string_view title, const std::vector<std::string>& tags,
                       std::string_view body) {
  std::string text = "---\n";
  const auto add = [&](std::string_view key, const std::string& value) {
    if (!value.empty()) text += fmt::format("{}: {}\n", key, value);
  };
  add("license", origin.license);
  add("license_name", origin.license_name);
  add("license_link", origin.license_link);
  std::vector<std::string> bases, all_tags = origin.tags;
  for (const auto& base : origin.base_models) bases.push_back(base.id());
  for (const auto& tag : tags) {
    if (std::ranges::find(all_tags, tag) == all_tags.end()) all_tags.push_back(tag);
  }
  add_list(text, "base_model", bases);
  add_list(text, "language", origin.languages);
  text += "pipeline_tag: text-generation\n";
  add_list(text, "tags", all_tags);
  return text + fmt::format("---\n\n# {}\n\n{}", title, body);
}

}  // namespace potstill
