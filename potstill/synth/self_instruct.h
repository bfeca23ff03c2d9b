// Self-Instruct (arXiv:2212.10560) for one task: subtopics -> questions -> answers -> critique by a rubric -> the best.
//
// Every step is its own small request, so a weak teacher has one thing to do at a time and a long answer spoils
// nothing. A round asks for as many questions as the yield so far says are missing; the cheap rules refuse before the
// teacher is asked again; of what passes, the best by score that are new are kept.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "potstill/synth/answer_store.h"
#include "potstill/synth/filters.h"
#include "potstill/synth/prompts.h"
#include "potstill/synth/synth_config.h"
#include "potstill/synth/task_config.h"

namespace potstill {

struct Candidate {
  std::string id;  // of subtopic, fact, question and answer
  Pair pair;
  int64_t round = 0;
  size_t unit = 0;                                     // index of what it is about
  int64_t attempt = 0;                                 // how often that was asked before
  std::string question_key, answer_key, critique_key;  // their records in raw.jsonl (hash of the prompts)
  std::map<std::string, double> scores;                // by criterion, 1 to 5, and "score", their weighted mean
  std::map<std::string, double> measured;              // nats a token behind them
  std::string critique;
  std::optional<Refusal> refusal;
  bool heldout = false;
};

struct SynthOutcome {
  std::vector<Candidate> accepted, rejected;  // in the order in which they were planned
  int64_t rounds = 0;
  int64_t num_subtopics = 0;

  // {"candidates": 160, "accepted": 64, "refused": {"circular": 9, …}} and the same as aligned lines.
  nlohmann::ordered_json yield() const;
  std::string yield_table() const;
};

// Throws Error(kInput) when the task cannot be worked with (no seeds; a teacher that names no subtopics).
SynthOutcome self_instruct(const Task& task, const SynthConfig& config, uint64_t seed, AnswerStore& teacher);

// Throws Error(kInput) with the yield when fewer than config.pairs were accepted.
void require_enough_pairs(const Task& task, const SynthConfig& config, const SynthOutcome& outcome);

// Marks held-out pairs by a hash of what they rest on (the fact, else the question), so that one fact is never on both
// sides and a pair keeps its side when others come or go. Too few are filled up to min(8, half) by the least hashes.
void split_heldout(std::vector<Candidate>& accepted, double share);

// An Alpaca record with lineage; `teacher` is the model's name.
nlohmann::ordered_json to_record(const Candidate& candidate, const Task& task, std::string_view teacher);

}  // namespace potstill
