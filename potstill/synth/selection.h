// Which of the candidates that passed every rule are kept: the best by score that are new and keep D_gen in balance.
#pragma once

#include <cstdint>
#include <span>

#include "potstill/synth/candidate.h"
#include "potstill/synth/task_config.h"

namespace potstill {

// Goes through all that passed the rules by falling score and keeps the first `most` that are new and do not unbalance
// letters, lengths or subtopics; the others get the rules not_new, letter, longest_option, subtopic_quota or
// not_needed. Those kept out by an earlier selection get their chance again, now that better ones may have come.
// Returns how many were kept.
int64_t select_best(const Task& task, int64_t most, std::span<Candidate> candidates);

// Marks held-out pairs by a hash of what they rest on (the fact, else context and question), so that one fact is never
// on both sides and a pair keeps its side when others come or go. Too few are filled up to min(8, half) by the least
// hashes.
void split_heldout(std::vector<Candidate>& accepted, double share);

// The text that tells a pair's question from another's: its words, the context's too where it has one.
std::string asked_text(const Task& task, const Pair& pair);

}  // namespace potstill
