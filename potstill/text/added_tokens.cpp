#include "potstill/text/added_tokens.h"

#include <algorithm>
#include <cstring>

#include "potstill/text/unicode.h"

namespace potstill {

AddedTokens::AddedTokens(const std::vector<const AddedToken*>& tokens) {
  for (const AddedToken* token : tokens) {
    if (!token->content.empty()) sorted_.push_back(token);
  }
  std::stable_sort(sorted_.begin(), sorted_.end(),
                   [](const AddedToken* a, const AddedToken* b) { return a->content < b->content; });
  for (const AddedToken* token : sorted_) begins_[static_cast<unsigned char>(token->content[0])] = true;
  if (std::count(begins_.begin(), begins_.end(), true) == 1) {
    only_first_byte_ = static_cast<unsigned char>(sorted_[0]->content[0]);
  }
}

// Walks the sorted contents as a trie: the range that shares the text's first k bytes narrows with every byte.
const AddedToken* AddedTokens::longest_at(std::string_view text) const {
  const AddedToken* longest = nullptr;
  auto low = sorted_.begin(), high = sorted_.end();
  for (size_t depth = 0; low != high; ++depth) {
    // the shortest content of a range sorts first; of several that normalise alike the last one counts
    while (low != high && (*low)->content.size() == depth) longest = *low++;
    if (depth == text.size() || low == high) break;
    const auto byte = static_cast<unsigned char>(text[depth]);
    const auto at_depth = [depth](const AddedToken* token) {
      return static_cast<unsigned char>(token->content[depth]);
    };
    low = std::partition_point(low, high, [&](const AddedToken* token) { return at_depth(token) < byte; });
    high = std::partition_point(low, high, [&](const AddedToken* token) { return at_depth(token) == byte; });
  }
  return longest;
}

std::optional<AddedTokens::Match> AddedTokens::next(std::string_view text, size_t from, size_t claimed,
                                                    bool ordinary_specials, size_t* resume) const {
  for (size_t start = from; start < text.size(); ++start) {
    if (only_first_byte_ >= 0) {
      const void* hit = std::memchr(text.data() + start, only_first_byte_, text.size() - start);
      if (!hit) break;
      start = static_cast<size_t>(static_cast<const char*>(hit) - text.data());
    } else if (!begins_[static_cast<unsigned char>(text[start])]) {
      continue;
    }
    const AddedToken* token = longest_at(text.substr(start));
    if (!token) continue;
    size_t stop = start + token->content.size();
    *resume = stop;
    const bool inside_word =
        token->single_word && (ends_with_word(text.substr(0, start)) || starts_with_word(text.substr(stop)));
    if (inside_word || (ordinary_specials && token->special)) {  // passed over whole: what is inside it matches no more
      start = stop - 1;
      continue;
    }
    const size_t content_start = start;
    if (token->lstrip) start = std::max(claimed, content_start - trailing_space(text.substr(0, content_start)));
    if (token->rstrip) stop += leading_space(text.substr(stop));
    if (start >= stop) {  // nothing left of it: the previous match took its blanks in by rstrip
      start = *resume - 1;
      continue;
    }
    return Match{start, stop, token->id};
  }
  return std::nullopt;
}

}  // namespace potstill
