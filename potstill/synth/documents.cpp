#include "potstill/synth/documents.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/synth/words.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kLeastPassageWords = 8;  // a heading's leftover, a page number

int64_t count_words(std::string_view text) { return static_cast<int64_t>(words_of(text).size()); }

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1);
}

// "[text](address)" -> "text"; emphasis and list marks go.
std::string without_markup(std::string_view line) {
  std::string plain;
  for (size_t i = 0; i < line.size(); ++i) {
    const size_t middle = line[i] == '[' ? line.find("](", i) : std::string_view::npos;
    const size_t end = middle == std::string_view::npos ? middle : line.find(')', middle);
    if (end != std::string_view::npos) {
      plain += line.substr(i + 1, middle - i - 1);
      i = end;
    } else if (line[i] != '*' && line[i] != '`') {
      plain += line[i];
    }
  }
  const std::string_view text = trimmed(plain);
  return std::string(text.starts_with("- ") || text.starts_with("> ") ? text.substr(2) : text);
}

class Sections {
 public:
  Sections(std::string path, int64_t passage_words) : path_(std::move(path)), passage_words_(passage_words) {}

  void read(std::string_view text) {
    bool code = false;
    for (size_t begin = 0; begin <= text.size();) {
      const size_t end = std::min(text.find('\n', begin), text.size());
      const std::string_view line = trimmed(text.substr(begin, end - begin));
      begin = end + 1;
      if (line.starts_with("```")) {
        code = !code;
      } else if (!code) {
        take(line);
      }
    }
    end_section();
  }

  std::vector<Subtopic> subtopics;

 private:
  void take(std::string_view line) {
    if (line.empty()) return end_paragraph();
    if (line.starts_with('|') || line.starts_with("---") || line.starts_with("===")) return;
    if (line.starts_with('#')) {
      end_section();
      const size_t begin = line.find_first_not_of("# ");
      heading_ = begin == std::string_view::npos ? "" : without_markup(line.substr(begin));
      return;
    }
    if (line.starts_with("- ") || line.starts_with("* ")) end_paragraph();
    paragraph_ += (paragraph_.empty() ? "" : " ") + without_markup(line);
  }

  void end_paragraph() {
    for (std::string_view rest = paragraph_; !rest.empty();) {
      const std::string_view piece = first_sentences(rest);
      if (count_words(passage_) + count_words(piece) > passage_words_) end_passage();
      passage_ += (passage_.empty() ? "" : " ") + std::string(trimmed(piece));
      rest.remove_prefix(piece.size());
    }
    paragraph_.clear();
  }

  // All of it, or as many whole sentences as a passage holds; at least one.
  std::string_view first_sentences(std::string_view text) const {
    if (count_words(text) <= passage_words_) return text;
    size_t cut = 0;
    for (size_t i = 0; i + 1 < text.size(); ++i) {
      const bool ends = (text[i] == '.' || text[i] == '!' || text[i] == '?') && text[i + 1] == ' ';
      if (!ends) continue;
      if (cut > 0 && count_words(text.substr(0, i + 1)) > passage_words_) break;
      cut = i + 1;
    }
    return cut == 0 ? text : text.substr(0, cut);
  }

  void end_passage() {
    if (count_words(passage_) >= kLeastPassageWords) facts_.push_back(passage_);
    passage_.clear();
  }

  void end_section() {
    end_paragraph();
    end_passage();
    if (!facts_.empty()) {
      subtopics.push_back({.name = heading_.empty() ? path_ : fmt::format("{}#{}", path_, heading_), .facts = facts_});
    }
    facts_.clear();
  }

  std::string path_;
  int64_t passage_words_;
  std::string heading_, paragraph_, passage_;
  std::vector<std::string> facts_;
};

}  // namespace

std::vector<Subtopic> read_documents(const fs::path& folder, int64_t passage_words) {
  if (!fs::is_directory(folder)) {
    throw Error(ErrorKind::kIo, folder.string(), "is no folder", "--documents names a folder of .txt and .md files");
  }
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const auto extension = entry.path().extension();
    if (entry.is_regular_file() && (extension == ".txt" || extension == ".md")) files.push_back(entry.path());
  }
  std::ranges::sort(files);
  std::vector<Subtopic> subtopics;
  for (const auto& file : files) {
    Sections sections(file.lexically_relative(folder).string(), passage_words);
    sections.read(read_file(file));
    for (auto& subtopic : sections.subtopics) subtopics.push_back(std::move(subtopic));
  }
  if (subtopics.empty()) {
    throw Error(
        ErrorKind::kInput, folder.string(),
        fmt::format("{} .txt and .md files, and no passage of {} words in them", files.size(), kLeastPassageWords),
        "put plain text or Markdown there");
  }
  return subtopics;
}

}  // namespace potstill
