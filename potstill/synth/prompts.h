// What the teacher is asked, made from a task. Parts that all requests of a round share stand first (instruction, then
// examples), so that a model with a prefix cache reads them once.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "potstill/lm/language_model.h"
#include "potstill/synth/synth_config.h"
#include "potstill/synth/task_config.h"

namespace potstill {

// What one question is about: a fact of a subtopic, or the subtopic by its name.
struct Unit {
  std::string subtopic, fact;  // fact may be empty
};

// Changed whenever a prompt below changes; part of every pair's lineage.
constexpr std::string_view kPromptVersion = "synth-prompts-1";

// `round` turns the examples, so that another round shows others; `seed` is the request's own stream.
GenerateRequest subtopics_request(const Task& task, const SynthConfig& config, uint64_t seed);
GenerateRequest question_request(const Task& task, const SynthConfig& config, const Unit& unit, int64_t round,
                                 uint64_t seed);
GenerateRequest answer_request(const Task& task, const SynthConfig& config, const Unit& unit,
                               std::string_view question);

struct Pair {
  Unit unit;
  std::string question, answer;
};

// The measures of Criterion, each a log-likelihood a token or the difference of two.
ScoreRequest likelihood_request(const Pair& pair);
ScoreRequest relevance_request(const Pair& pair);  // minus prior_request
ScoreRequest prior_request(const Pair& pair);
ScoreRequest round_trip_request(const Pair& pair);

// Ratings: the score token of one criterion, or all criteria as one JSON object.
ChoiceRequest rating_request(const Task& task, const Criterion& criterion, const Pair& pair);
GenerateRequest critique_request(const Task& task, const Pair& pair);

}  // namespace potstill
