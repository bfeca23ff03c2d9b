// The rules that refuse a question or an answer without asking any model. Each is small, named, and listed in yield.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "potstill/synth/task_config.h"

namespace potstill {

struct Refusal {
  std::string rule;    // "length", "refusal", …: what yield counts by
  std::string detail;  // what was found
};

// What a pair is judged by; `fact` is empty where the subtopic has none.
struct PairText {
  std::string_view fact, question, answer;
};

// A question alone: truncated, format, length, charset, forbidden, self_reference, refusal, loop.
std::optional<Refusal> refuse_question(const Task& task, std::string_view question, bool truncated);

// An answer beside its question: the same rules, and repeats_question, circular, ungrounded, numerals, negation.
std::optional<Refusal> refuse_answer(const Task& task, const PairText& pair, bool truncated);

}  // namespace potstill
