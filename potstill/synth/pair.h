// Pair: one question and its answer, with all that belongs to them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace potstill {

// What one pair is about: a fact or passage of a subtopic, or the subtopic by its name.
struct Unit {
  std::string subtopic, fact = {};
  std::string label = {};  // of a task with the same choices for every pair: the one that this pair shall have
};

struct Pair {
  Unit unit = {};
  std::string question = {}, answer = {}, context = {};
  std::vector<std::string> wrong = {};    // as the teacher wrote them
  std::vector<std::string> options = {};  // right and wrong ones, in the order in which they are shown
  int64_t key = -1;                       // place of the right one, from 0
};

}  // namespace potstill
