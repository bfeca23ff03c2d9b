// Self-Instruct (arXiv:2212.10560) for one task: subtopics -> questions -> answers -> critique by a rubric -> the best.
//
// Every step is its own small request, so a weak teacher has one thing to do at a time and a long answer spoils
// nothing; a capable one may write whole pairs as JSON, and is asked by the steps only for parts that cannot be read. A
// round asks for as many pairs as the yield so far says are missing; the cheap rules refuse before the teacher is asked
// again; of what passes, the best by score that are new are kept.
#pragma once

#include <cstdint>

#include "potstill/synth/answer_store.h"
#include "potstill/synth/candidate.h"
#include "potstill/synth/contamination.h"
#include "potstill/synth/selection.h"
#include "potstill/synth/synth_config.h"
#include "potstill/synth/task_config.h"

namespace potstill {

// Who is asked, and what no pair may match. All are borrowed.
struct SynthHelpers {
  AnswerStore& teacher;
  AnswerStore* critic = nullptr;                   // null: the teacher itself
  const ContaminationIndex* benchmarks = nullptr;  // null: there are no rows to compare with
};

// Throws Error(kInput) when the task cannot be worked with (no seeds; a teacher that names no subtopics).
SynthOutcome self_instruct(const Task& task, const SynthConfig& config, uint64_t seed, const SynthHelpers& helpers);

// Throws Error(kInput) with the yield when fewer than config.pairs were accepted.
void require_enough_pairs(const Task& task, const SynthConfig& config, const SynthOutcome& outcome);

}  // namespace potstill
