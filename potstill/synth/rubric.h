// The teacher's critique of its own pairs, by the task's rubric.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "potstill/synth/answer_store.h"
#include "potstill/synth/candidate.h"
#include "potstill/synth/prompts.h"

namespace potstill {

struct Judgement {
  std::map<std::string, double> scores;    // by criterion, and "score": the weighted mean; all 1 to 5
  std::map<std::string, double> measured;  // nats a token behind them
  std::string critique;                    // what a JSON critique said
  std::optional<Source> source;            // and where its record is
  std::optional<Refusal> refusal;          // "low_<criterion>", "low_score", "no_critique"
};

// Asks only for the measures that the rubric names. `agreements`: of the pairs' blind answers, empty where none were
// given; criteria that have nothing to go by are left out. Without any, every pair scores 5.
std::vector<Judgement> judge_pairs(const Task& task, const SynthConfig& config, std::span<const Pair> pairs,
                                   std::span<const double> agreements, AnswerStore& critic);

// A measure in nats on the scale from 1 to 5.
double on_scale(const Criterion& criterion, double nats);

}  // namespace potstill
