// Settings of `potstill evaluate` and the recipe's [evaluate] section: which benchmark rows are scored.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "potstill/base/fields.h"

namespace potstill {

struct EvalConfig {
  std::vector<std::string> tasks;
  std::filesystem::path data;
  int64_t limit = 0;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("tasks", self.tasks, "benchmarks by name: arc_easy, mmlu, hellaswag, …", any());
    visit("data", self.data, "folder with <task>/<split>.jsonl, rows under the Hub's field names", any());
    visit("limit", self.limit, "score the first N rows of each task; 0 = all", at_least(0));
  }
};

}  // namespace potstill
