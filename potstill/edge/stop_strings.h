// StopStrings: cuts a stream of text before the first of some strings, wherever the pieces are torn.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace potstill::edge {

class StopStrings {
 public:
  explicit StopStrings(std::vector<std::string> stops);

  // The text that is certain: what might be the beginning of a stop string is held back. Nothing once one was found.
  std::string push(std::string_view piece);
  std::string finish();  // what was held back
  bool found() const { return found_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool found_ = false;
};

}  // namespace potstill::edge
