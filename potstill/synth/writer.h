// The parts of pairs as the teacher writes them: asked for, read, and checked one part at a time.
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "potstill/synth/answer_store.h"
#include "potstill/synth/candidate.h"
#include "potstill/synth/prompts.h"
#include "potstill/synth/synth_config.h"
#include "potstill/synth/task_config.h"

namespace potstill {

class Writer {
 public:
  Writer(const Task& task, const SynthConfig& config, uint64_t seed, AnswerStore& teacher)
      : task_(task), config_(config), seed_(seed), teacher_(teacher) {}

  // Fills the parts of candidates from `begin` on, and refuses those whose parts break a rule. All of `candidates` is
  // looked at for options to borrow.
  void write(std::vector<Candidate>& candidates, size_t begin);

 private:
  uint64_t stream(const Candidate& candidate, std::string_view what) const;
  void ask_items(std::vector<Candidate*> open);
  void ask_part(std::vector<Candidate*> open, Part part);
  void check_part(Candidate& candidate, Part part, bool truncated);
  void borrow_wrong(std::span<Candidate> all, std::vector<Candidate*> open) const;
  void finish_options(Candidate& candidate) const;

  const Task& task_;
  const SynthConfig& config_;
  const uint64_t seed_;
  AnswerStore& teacher_;
  std::set<std::string> asked_;  // texts that were asked before, as words
};

// SHA-256, shortened, of everything that the pair says.
std::string candidate_id(const Task& task, const Pair& pair);

// Candidates from `begin` on that no rule has refused.
std::vector<Candidate*> open_candidates(std::vector<Candidate>& candidates, size_t begin);

}  // namespace potstill
