// AddedTokens: finds tokens that are matched in the text before anything else ("<|im_end|>").
#pragma once

#include <array>
#include <optional>
#include <string_view>
#include <vector>

#include "potstill/text/tokenizer.h"

namespace potstill {

class AddedTokens {
 public:
  AddedTokens() = default;
  // `tokens` must outlive this; entries without content match nothing.
  explicit AddedTokens(const std::vector<const AddedToken*>& tokens);

  bool empty() const { return sorted_.empty(); }

  struct Match {
    size_t start, stop;  // bytes, with the blanks that lstrip and rstrip take in
    TokenId id;
  };
  // The leftmost longest match from `from` on that its token's single_word allows. A match of a special token is passed
  // over when `ordinary_specials`. `claimed` is where the previous match stopped: lstrip takes nothing before it.
  std::optional<Match> next(std::string_view text, size_t from, size_t claimed, bool ordinary_specials,
                            size_t* resume) const;

 private:
  const AddedToken* longest_at(std::string_view text) const;

  std::vector<const AddedToken*> sorted_;  // by content
  std::array<bool, 256> begins_{};         // a first byte of some content
  int only_first_byte_ = -1;               // of all contents, if it is one
};

}  // namespace potstill
