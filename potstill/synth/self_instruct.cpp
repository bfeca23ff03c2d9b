#include "potstill/synth/self_instruct.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <tuple>

#include "potstill/base/error.h"
#include "potstill/base/log.h"
#include "potstill/base/rng.h"
#include "potstill/base/sha256.h"
#include "potstill/synth/novelty.h"
#include "potstill/synth/parse.h"
#include "potstill/synth/rubric.h"
#include "potstill/synth/words.h"

namespace potstill {
namespace {

constexpr double kFirstYield = 0.5;  // share of candidates expected to pass before anything is known
constexpr double kLeastYield = 0.1;  // a round never asks for more than ten times what is missing
constexpr size_t kMaxSubtopicWords = 8;

std::string joined_words(std::string_view text) {
  std::string joined;
  for (const auto& word : words_of(text)) joined += word + " ";
  return joined;
}

std::string id_of(const Task& task, const Pair& pair) {
  return sha256_hex(nlohmann::json({task.name, pair.unit.subtopic, pair.unit.fact, pair.question, pair.answer})
                        .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace))
      .substr(0, 16);
}

// The run's state; each step is a method, in the order in which they happen.
class Run {
 public:
  Run(const Task& task, const SynthConfig& config, uint64_t seed, AnswerStore& teacher)
      : task_(task), config_(config), seed_(seed), teacher_(teacher) {}

  SynthOutcome work() {
    make_units();
    const auto target = static_cast<int64_t>(std::ceil(static_cast<double>(config_.pairs) * (1.0 + config_.surplus)));
    SynthOutcome outcome;
    for (int64_t standing = 0; outcome.rounds < config_.max_rounds && standing < target; ++outcome.rounds) {
      const size_t begin = candidates_.size();
      plan_round(outcome.rounds, target - standing, standing);
      ask_questions(begin);
      ask_answers(begin);
      criticize(begin);
      standing = select(target);
      log_info("round {}: {} of {} candidates stand", outcome.rounds + 1, standing, candidates_.size());
    }
    select(config_.pairs);
    outcome.num_subtopics = num_subtopics_;
    for (auto& candidate : candidates_) {
      (candidate.refusal ? outcome.rejected : outcome.accepted).push_back(std::move(candidate));
    }
    split_heldout(outcome.accepted, config_.heldout_share);
    return outcome;
  }

 private:
  struct PlannedUnit {
    Unit unit;
    int64_t asked = 0, standing = 0;
  };

  uint64_t stream(const std::string& name) const { return derive_seed(seed_, "synth/" + name); }

  // Subtopics of the task file, or named by the teacher; shuffled, so that a round smaller than all of them is not
  // always about the first ones.
  void make_units() {
    std::vector<Subtopic> subtopics = task_.subtopics;
    if (subtopics.empty()) subtopics = ask_subtopics();
    num_subtopics_ = static_cast<int64_t>(subtopics.size());
    for (const auto& subtopic : subtopics) {
      if (subtopic.facts.empty()) units_.push_back({.unit = {.subtopic = subtopic.name, .fact = {}}});
      for (const auto& fact : subtopic.facts) units_.push_back({.unit = {.subtopic = subtopic.name, .fact = fact}});
    }
    Rng(seed_, "synth/units").shuffle(units_);
  }

  std::vector<Subtopic> ask_subtopics() {
    const std::vector<GenerateRequest> requests{subtopics_request(task_, config_, stream("subtopics"))};
    const auto answer = teacher_.generate("subtopics", requests).front();
    // A completion goes on behind the number that the prompt ends with.
    const std::string list = config_.prompting == "chat" ? answer.text : "1. " + answer.text;
    std::vector<Subtopic> subtopics;
    for (auto& name : parse_list(list, answer.finish == FinishReason::kLength, kMaxSubtopicWords)) {
      if (static_cast<int64_t>(subtopics.size()) == task_.num_subtopics) break;
      subtopics.push_back({.name = std::move(name), .facts = {}});
    }
    if (!subtopics.empty()) return subtopics;
    throw Error(ErrorKind::kInput, task_.name,
                fmt::format("the teacher was asked for {} subtopics and named none; it wrote \"{:.120}\"",
                            task_.num_subtopics, answer.text),
                "list 'subtopics' in the task file, or use a more capable teacher");
  }

  // Units with the fewest standing pairs first, then those asked least.
  void plan_round(int64_t round, int64_t missing, int64_t standing) {
    const auto seen = static_cast<double>(candidates_.size());
    const double yield = seen == 0 ? kFirstYield : std::max(kLeastYield, static_cast<double>(standing) / seen);
    const auto wanted = static_cast<int64_t>(std::ceil(static_cast<double>(missing) / yield));
    for (auto& unit : units_) unit.standing = 0;
    for (const auto& candidate : candidates_) units_[candidate.unit].standing += !candidate.refusal;
    for (int64_t i = 0; i < wanted; ++i) {
      const auto next = std::ranges::min_element(
          units_, {}, [](const PlannedUnit& unit) { return std::tuple(unit.standing, unit.asked); });
      ++next->standing;
      ++next->asked;
      Candidate candidate;
      candidate.unit = static_cast<size_t>(next - units_.begin());
      candidate.pair.unit = next->unit;
      candidate.round = round;
      candidate.attempt = next->asked - 1;
      candidates_.push_back(std::move(candidate));
    }
  }

  void ask_questions(size_t begin) {
    std::vector<GenerateRequest> requests;
    for (const auto& candidate : open(begin)) {
      const auto& unit = candidate->pair.unit;
      const auto name = fmt::format("question/{}/{}/{}", unit.subtopic, unit.fact, candidate->attempt);
      requests.push_back(question_request(task_, config_, unit, candidate->round, stream(name)));
    }
    const auto answers = teacher_.generate("questions", requests);
    const auto asked = open(begin);
    for (size_t i = 0; i < asked.size(); ++i) {
      Candidate& candidate = *asked[i];
      candidate.pair.question = clean_answer(answers[i].text);
      candidate.question_key = answers[i].key;
      candidate.refusal = refuse_question(task_, candidate.pair.question, answers[i].finish == FinishReason::kLength);
      // The very question again costs no answer; what is only near is left to select(), which keeps the better one.
      if (!candidate.refusal && !questions_.insert(joined_words(candidate.pair.question)).second) {
        candidate.refusal = {"duplicate", "asked before"};
      }
    }
    for (auto& candidate : std::span(candidates_).subspan(begin)) candidate.id = id_of(task_, candidate.pair);
  }

  void ask_answers(size_t begin) {
    const auto asked = open(begin);
    std::vector<GenerateRequest> requests;
    for (const auto* candidate : asked) {
      requests.push_back(answer_request(task_, config_, candidate->pair.unit, candidate->pair.question));
    }
    const auto answers = teacher_.generate("answers", requests);
    for (size_t i = 0; i < asked.size(); ++i) {
      Candidate& candidate = *asked[i];
      candidate.pair.answer = clean_answer(answers[i].text);
      candidate.answer_key = answers[i].key;
      candidate.id = id_of(task_, candidate.pair);
      candidate.refusal =
          refuse_answer(task_, {candidate.pair.unit.fact, candidate.pair.question, candidate.pair.answer},
                        answers[i].finish == FinishReason::kLength);
    }
  }

  void criticize(size_t begin) {
    const auto asked = open(begin);
    std::vector<Pair> pairs;
    for (const auto* candidate : asked) pairs.push_back(candidate->pair);
    auto judgements = judge_pairs(task_, config_, pairs, teacher_);
    for (size_t i = 0; i < asked.size(); ++i) {
      Candidate& candidate = *asked[i];
      candidate.scores = std::move(judgements[i].scores);
      candidate.measured = std::move(judgements[i].measured);
      candidate.critique = std::move(judgements[i].critique);
      candidate.critique_key = std::move(judgements[i].critique_key);
      candidate.refusal = std::move(judgements[i].refusal);
    }
  }

  // Goes through all that passed the rules by falling score and keeps the first `most` that are new; those kept out by
  // an earlier selection get their chance again, now that better ones may have come.
  int64_t select(int64_t most) {
    std::vector<Candidate*> passed;
    for (auto& candidate : candidates_) {
      if (candidate.refusal && candidate.refusal->rule != "not_new" && candidate.refusal->rule != "not_needed")
        continue;
      candidate.refusal.reset();
      passed.push_back(&candidate);
    }
    std::ranges::sort(passed, {}, [](const Candidate* c) { return std::pair(-c->scores.at("score"), c->id); });
    NoveltyPool pool(task_.filter.max_rouge);
    for (const auto& seed : task_.seeds) pool.add(seed.question, seed.answer);
    int64_t kept = 0;
    for (auto* candidate : passed) {
      if (kept == most) {
        candidate->refusal = {"not_needed", "passed, but enough others scored higher"};
      } else if (const auto near = pool.nearest(candidate->pair.question, candidate->pair.answer)) {
        candidate->refusal = {"not_new", fmt::format("near to '{}'", *near)};
      } else {
        pool.add(candidate->pair.question, candidate->pair.answer);
        ++kept;
      }
    }
    return kept;
  }

  // Candidates from `begin` on that no rule has refused.
  std::vector<Candidate*> open(size_t begin) {
    std::vector<Candidate*> result;
    for (size_t i = begin; i < candidates_.size(); ++i) {
      if (!candidates_[i].refusal) result.push_back(&candidates_[i]);
    }
    return result;
  }

  const Task& task_;
  const SynthConfig& config_;
  const uint64_t seed_;
  AnswerStore& teacher_;
  std::vector<PlannedUnit> units_;
  int64_t num_subtopics_ = 0;
  std::vector<Candidate> candidates_;
  std::set<std::string> questions_;
};

}  // namespace

SynthOutcome self_instruct(const Task& task, const SynthConfig& config, uint64_t seed, AnswerStore& teacher) {
  if (task.seeds.empty()) {
    throw Error(ErrorKind::kInput, task.name, "the task has no seeds", "write three or more under 'seeds'");
  }
  return Run(task, config, seed, teacher).work();
}

nlohmann::ordered_json SynthOutcome::yield() const {
  std::map<std::string, int64_t> refused;
  for (const auto& candidate : rejected) ++refused[candidate.refusal->rule];
  nlohmann::ordered_json counts = nlohmann::ordered_json::object();
  for (const auto& [rule, count] : refused) counts[rule] = count;
  return {{"candidates", accepted.size() + rejected.size()}, {"accepted", accepted.size()}, {"refused", counts}};
}

std::string SynthOutcome::yield_table() const {
  const auto counts = yield();
  const auto total = counts["candidates"].get<int64_t>();
  std::string table;
  const auto line = [&](const std::string& name, int64_t count) {
    table += fmt::format("  {:<24}{:>6}{:>7.1f} %\n", name, count,
                         total == 0 ? 0.0 : 100.0 * static_cast<double>(count) / static_cast<double>(total));
  };
  line("candidates", total);
  line("accepted", counts["accepted"].get<int64_t>());
  std::vector<std::pair<int64_t, std::string>> refused;
  for (const auto& [rule, count] : counts["refused"].items()) refused.emplace_back(-count.get<int64_t>(), rule);
  std::ranges::sort(refused);
  for (const auto& entry : refused) line("refused: " + entry.second, -entry.first);
  table.pop_back();
  return table;
}

void require_enough_pairs(const Task& task, const SynthConfig& config, const SynthOutcome& outcome) {
  if (static_cast<int64_t>(outcome.accepted.size()) >= config.pairs) return;
  throw Error(
      ErrorKind::kInput, task.name,
      fmt::format("the teacher gave {} acceptable pairs of the {} asked for, out of {} candidates in {} rounds\n{}",
                  outcome.accepted.size(), config.pairs, outcome.accepted.size() + outcome.rejected.size(),
                  outcome.rounds, outcome.yield_table()),
      "use a more capable teacher, add facts or subtopics to the task, loosen the rule that refuses most, or "
      "raise max_rounds; what was asked is kept and not asked again");
}

void split_heldout(std::vector<Candidate>& accepted, double share) {
  if (share <= 0.0) return;
  constexpr size_t kLeastHeldout = 8;
  std::map<std::string, std::vector<Candidate*>> groups;  // by hash: what rests on one fact stays together
  for (auto& candidate : accepted) {
    const auto& pair = candidate.pair;
    groups[sha256_hex("split\n" + (pair.unit.fact.empty() ? joined_words(pair.question) : pair.unit.fact))].push_back(
        &candidate);
  }
  const size_t least = std::min(kLeastHeldout, accepted.size() / 2);
  size_t heldout = 0;
  for (const auto& [hash, members] : groups) {  // by rising hash
    const double place = static_cast<double>(std::stoull(hash.substr(0, 12), nullptr, 16)) / std::pow(2.0, 48);
    if (place >= share && heldout >= least) break;
    for (auto* candidate : members) candidate->heldout = true;
    heldout += members.size();
  }
}

nlohmann::ordered_json to_record(const Candidate& candidate, const Task& task, std::string_view teacher) {
  nlohmann::ordered_json record{{"instruction", candidate.pair.question},
                                {"input", ""},
                                {"output", candidate.pair.answer},
                                {"id", candidate.id},
                                {"task", task.name},
                                {"subtopic", candidate.pair.unit.subtopic}};
  if (!candidate.pair.unit.fact.empty()) record["fact"] = candidate.pair.unit.fact;
  if (!candidate.refusal) record["split"] = candidate.heldout ? "heldout" : "train";
  record["scores"] = candidate.scores;
  record["measured"] = candidate.measured;
  if (!candidate.critique.empty()) record["critique"] = candidate.critique;
  record["teacher"] = teacher;
  record["prompts"] = kPromptVersion;
  record["round"] = candidate.round;
  // Keys of the records in raw.jsonl, which hold the prompt in full and the answer as it came.
  nlohmann::ordered_json raw{{"question", candidate.question_key}};
  if (!candidate.answer_key.empty()) raw["answer"] = candidate.answer_key;
  if (!candidate.critique_key.empty()) raw["critique"] = candidate.critique_key;
  record["raw"] = raw;
  if (candidate.refusal) {
    record["reason"] = candidate.refusal->rule;
    record["detail"] = candidate.refusal->detail;
  }
  return record;
}

}  // namespace potstill
