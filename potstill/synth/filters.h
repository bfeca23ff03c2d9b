// The rules that refuse a question or an answer without asking any model. Each is small, named, and listed in yield.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "potstill/synth/pair.h"
#include "potstill/synth/task_config.h"

namespace potstill {

struct Refusal {
  std::string rule;    // "truncated", "ungrounded", …: which rule refused
  std::string detail;  // what was found
};

// What the yield is counted by: format, length, language, refusal, forbidden, duplicate, near_duplicate, low_score,
// unanswerable, wrong_by_majority, unbalanced, contaminated, or surplus (it passed, and others scored higher).
std::string_view reason_of(std::string_view rule);

// What a pair is judged by; `fact` is empty where the subtopic has none.
struct PairText {
  std::string_view fact, question, answer, context = {};
};

// A context alone: truncated, format, length, charset, foreign, forbidden, self_reference, refusal, loop.
std::optional<Refusal> refuse_context(const Task& task, std::string_view context, bool truncated);

// A question alone: truncated, format, length, charset, forbidden, self_reference, refusal, loop.
std::optional<Refusal> refuse_question(const Task& task, std::string_view question, bool truncated);

// An answer beside its question: the same rules, and repeats_question, circular, ungrounded, numerals, negation.
std::optional<Refusal> refuse_answer(const Task& task, const PairText& pair, bool truncated);

// Wrong options beside the right one: options (number, emptiness, equal ones, "all of the above"), option_length,
// option_style, and the rules of a text for each.
std::optional<Refusal> refuse_options(const Task& task, std::string_view answer, const std::vector<std::string>& wrong);

}  // namespace potstill
