// What the teacher is asked, made from a task. Parts that all requests of a round share stand first (instruction, then
// examples), so that a model with a prefix cache reads them once.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "potstill/lm/language_model.h"
#include "potstill/synth/pair.h"
#include "potstill/synth/synth_config.h"
#include "potstill/synth/task_config.h"

namespace potstill {

// Changed whenever a prompt below changes; part of every pair's lineage.
constexpr std::string_view kPromptVersion = "synth-prompts-2";

// The parts of a pair, in the order in which they are written.
enum class Part { kContext, kQuestion, kAnswer, kWrong };

bool writes(const Task& task, Part part);
std::string_view part_key(Part part);  // "context", "question", "answer", "wrong": its key as JSON and in lineage

GenerateRequest subtopics_request(const Task& task, const SynthConfig& config, uint64_t seed);
// Asks for one part, the parts before it given. `round` turns the examples, so that another round shows others; `seed`
// is the request's own stream: contexts, questions and wrong options are drawn, answers are greedy.
GenerateRequest part_request(const Task& task, const SynthConfig& config, Part part, const Pair& pair, int64_t round,
                             uint64_t seed);
// Asks for all parts at once, as one JSON object held to item_schema.
GenerateRequest item_request(const Task& task, const SynthConfig& config, const Unit& unit, int64_t round,
                             uint64_t seed);
nlohmann::ordered_json item_schema(const Task& task);
// Which seeds the requests of a round show, as indices into task.seeds.
std::vector<size_t> shown_seeds(const Task& task, const Unit& unit, int64_t round);

// The measures of Criterion, each a log-likelihood a token or the difference of two.
ScoreRequest likelihood_request(const Task& task, const Pair& pair);
ScoreRequest relevance_request(const Task& task, const Pair& pair);  // minus prior_request
ScoreRequest prior_request(const Task& task, const Pair& pair);
ScoreRequest round_trip_request(const Task& task, const Pair& pair);

// Ratings: the score token of one criterion, or all criteria as one JSON object.
ChoiceRequest rating_request(const Task& task, const Criterion& criterion, const Pair& pair);
GenerateRequest critique_request(const Task& task, const Pair& pair);

// Blind answers: the question as it will be asked, one option as the answer (whole contexts, as the benchmark scores
// them); the letter of the right option; or an answer in words.
ScoreRequest option_request(const Task& task, const Pair& pair, int64_t option);
ChoiceRequest letter_request(const Task& task, const Pair& pair);
GenerateRequest vote_request(const Task& task, const SynthConfig& config, const Pair& pair, uint64_t seed);

}  // namespace potstill
