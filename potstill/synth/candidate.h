// Candidate: one pair on its way through the rules, and what became of it.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "potstill/synth/filters.h"
#include "potstill/synth/pair.h"
#include "potstill/synth/task_config.h"

namespace potstill {

// An answer of the teacher's that a pair rests on.
struct Source {
  std::string what;         // "question", "answer", "item", "critique", "blind", …
  std::string key;          // its record in raw.jsonl or critic.jsonl
  std::string prompt_hash;  // of what was asked
};

struct Candidate {
  std::string id;  // of everything that the pair says
  Pair pair = {};
  int64_t round = 0;
  size_t unit = 0;      // index of what it is about
  int64_t attempt = 0;  // how often that was asked before
  std::vector<size_t> seeds = {};
  std::vector<Source> sources = {};
  std::vector<std::string> passed = {};          // the groups of rules that it passed, in order
  std::map<std::string, double> scores = {};     // by criterion, 1 to 5, and "score", their weighted mean
  std::map<std::string, double> measured = {};   // nats a token behind them
  std::string critique = {}, blind_answer = {};  // what the critic said
  std::optional<double> agreement = {};          // of blind answers
  bool repaired = false;                         // its JSON was no whole object
  std::optional<Refusal> refusal = {};
  bool heldout = false;
};

struct SynthOutcome {
  std::vector<Candidate> accepted, rejected;  // in the order in which they were planned
  int64_t rounds = 0;
  int64_t num_subtopics = 0;

  // {"candidates": 160, "accepted": 64, "refused": {"format": 9, …}, "rules": {"truncated": 4, …}} and the same as
  // aligned lines.
  nlohmann::ordered_json yield() const;
  std::string yield_table() const;
  // How often each letter is the right one, how often the right option is the longest, pairs by subtopic (the largest
  // and the least), mean words of question and answer; and chi-square of the letters with its degrees of freedom.
  nlohmann::ordered_json balance() const;
};

// Who wrote and judged, for the records.
struct Lineage {
  std::string teacher, teacher_revision = {}, critic = {}, critic_revision = {};  // critic empty: the teacher
  std::map<std::string, std::string> places = {};                                 // key -> "raw.jsonl:12"
};

// An Alpaca record with lineage, and the same pair as a conversation.
nlohmann::ordered_json to_record(const Candidate& candidate, const Task& task, const Lineage& lineage);
nlohmann::ordered_json to_messages(const Candidate& candidate, const Task& task);

}  // namespace potstill
