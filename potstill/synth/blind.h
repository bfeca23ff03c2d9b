// A second answer to every question, given without sight of the first: pairs on which they differ are refused.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "potstill/synth/answer_store.h"
#include "potstill/synth/candidate.h"
#include "potstill/synth/synth_config.h"
#include "potstill/synth/task_config.h"

namespace potstill {

struct BlindAnswer {
  double agreement = 1.0;          // of votes: the share that agrees; else the probability of the right option
  std::string answered;            // what most said, or the option that won
  std::vector<Source> sources;     // votes' records
  std::optional<Refusal> refusal;  // "wrong_by_majority", "unanswerable"
};

// How a task's pairs are answered blind: "none", "likelihood", "letter" or "votes".
std::string blind_method(const Task& task, const SynthConfig& config);

// Empty when the method is "none". `seed` starts the votes' streams.
std::vector<BlindAnswer> answer_blind(const Task& task, const SynthConfig& config, uint64_t seed,
                                      std::span<const Pair> pairs, AnswerStore& critic);

}  // namespace potstill
