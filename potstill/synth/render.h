// A pair in the form in which it is learned and asked: Alpaca's fields out of the task's templates.
#pragma once

#include <string>

#include "potstill/synth/pair.h"
#include "potstill/synth/task_config.h"

namespace potstill {

// Names in a template (template_config.h): {question} {context} {answer} {letter} {number} {options} (lettered lines)
// {A} … {Z} (an option) {subtopic} {subject} {fact} {before} {after} (of the '_' in the question).
struct Rendered {
  std::string instruction, input, output;
  // As the user's turn holds them: `input` follows after an empty line.
  std::string prompt() const { return input.empty() ? instruction : instruction + "\n\n" + input; }
};

// `option`: which option stands as the answer; -1 = the pair's own. Without options it has no meaning.
Rendered render_pair(const Task& task, const Pair& pair, int64_t option = -1);

char option_letter(int64_t option);  // 0 -> 'A'

}  // namespace potstill
