#include "potstill/synth/self_instruct.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "potstill/base/error.h"
#include "potstill/base/log.h"
#include "potstill/base/rng.h"
#include "potstill/synth/blind.h"
#include "potstill/synth/parse.h"
#include "potstill/synth/prompts.h"
#include "potstill/synth/rubric.h"
#include "potstill/synth/writer.h"

namespace potstill {
namespace {

constexpr double kFirstYield = 0.5;  // share of candidates expected to pass before anything is known
constexpr double kLeastYield = 0.1;  // a round never asks for more than ten times what is missing
constexpr size_t kMaxSubtopicWords = 8;

BenchmarkItem as_item(const Pair& pair) {
  return {.where = {},
          .question = pair.context.empty() ? pair.question : pair.context + " " + pair.question,
          .options = pair.options,
          .answer = pair.answer};
}

// Seeds that are scored rows themselves would be shown to the teacher and come back in other words.
Task without_contaminated_seeds(Task task, const ContaminationIndex* benchmarks) {
  if (benchmarks == nullptr) return task;
  const size_t before = task.seeds.size();
  std::erase_if(task.seeds, [&](const TaskSeed& seed) {
    Pair pair{.question = seed.question, .answer = seed.answer, .context = seed.context, .wrong = seed.wrong};
    pair.options = seed.wrong;
    pair.options.push_back(seed.answer);
    const auto match = benchmarks->match(as_item(pair));
    if (match) log_warning("seed '{:.60}' matches {} ({}): left out", seed.question, match->where, match->matcher);
    return match.has_value();
  });
  if (task.seeds.empty() && before > 0) {
    throw Error(ErrorKind::kInput, task.name, fmt::format("all {} seeds match rows of the benchmarks", before),
                "take seeds from a training split, or write your own");
  }
  return task;
}

// The run's state; each step is a method, in the order in which they happen.
class Run {
 public:
  Run(const Task& task, const SynthConfig& config, uint64_t seed, const SynthHelpers& helpers)
      : task_(without_contaminated_seeds(task, helpers.benchmarks)),
        config_(config),
        seed_(seed),
        helpers_(helpers),
        critic_(helpers.critic != nullptr ? *helpers.critic : helpers.teacher),
        writer_(task_, config, seed, helpers.teacher) {}

  SynthOutcome work() {
    make_units();
    const auto target = static_cast<int64_t>(std::ceil(static_cast<double>(config_.pairs) * (1.0 + config_.surplus)));
    SynthOutcome outcome;
    for (int64_t standing = 0; outcome.rounds < config_.max_rounds && standing < target; ++outcome.rounds) {
      const size_t begin = candidates_.size();
      plan_round(outcome.rounds, target - standing, standing);
      writer_.write(candidates_, begin);
      refuse_contaminated(begin);
      compare_blind(begin);
      criticize(begin);
      standing = select_best(task_, target, candidates_);
      log_info("round {}: {} of {} candidates stand", outcome.rounds + 1, standing, candidates_.size());
    }
    select_best(task_, config_.pairs, candidates_);
    outcome.num_subtopics = num_subtopics_;
    for (auto& candidate : candidates_) {
      if (!candidate.refusal) candidate.passed.insert(candidate.passed.end(), {"novelty", "balance"});
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

  // Subtopics of the task file, or named by the teacher; shuffled, so that a round smaller than all of them is not
  // always about the first ones. With the same choices for every pair, each unit stands once for each of them.
  void make_units() {
    std::vector<Subtopic> subtopics = task_.subtopics;
    if (subtopics.empty()) subtopics = ask_subtopics();
    num_subtopics_ = static_cast<int64_t>(subtopics.size());
    const std::vector<std::string> labels = task_.gives_label() ? task_.choices : std::vector<std::string>{""};
    for (const auto& subtopic : subtopics) {
      for (const auto& label : labels) {
        if (subtopic.facts.empty()) units_.push_back({.unit = {.subtopic = subtopic.name, .label = label}});
        for (const auto& fact : subtopic.facts) {
          units_.push_back({.unit = {.subtopic = subtopic.name, .fact = fact, .label = label}});
        }
      }
    }
    Rng(seed_, "synth/units").shuffle(units_);
  }

  std::vector<Subtopic> ask_subtopics() {
    const std::vector<GenerateRequest> requests{
        subtopics_request(task_, config_, derive_seed(seed_, "synth/subtopics"))};
    const auto answer = helpers_.teacher.generate("subtopics", requests).front();
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
      candidate.pair.question = task_.fixed_question;
      if (task_.gives_label()) candidate.pair.answer = next->unit.label;
      if (task_.given_contexts) candidate.pair.context = next->unit.fact;
      candidate.round = round;
      candidate.attempt = next->asked - 1;
      candidates_.push_back(std::move(candidate));
    }
  }

  void refuse_contaminated(size_t begin) {
    if (helpers_.benchmarks == nullptr) return;
    for (auto* candidate : open_candidates(candidates_, begin)) {
      if (const auto match = helpers_.benchmarks->match(as_item(candidate->pair))) {
        candidate->refusal = {"contaminated",
                              fmt::format("{} by {}: {:.120}", match->where, match->matcher, match->shared)};
      } else {
        candidate->passed.push_back("contamination");
      }
    }
  }

  static std::vector<Pair> pairs_of(const std::vector<Candidate*>& candidates) {
    std::vector<Pair> pairs;
    for (const auto* candidate : candidates) pairs.push_back(candidate->pair);
    return pairs;
  }

  void compare_blind(size_t begin) {
    const auto open = open_candidates(candidates_, begin);
    auto answers = answer_blind(task_, config_, seed_, pairs_of(open), critic_);
    for (size_t i = 0; i < answers.size(); ++i) {
      Candidate& candidate = *open[i];
      candidate.agreement = answers[i].agreement;
      candidate.blind_answer = std::move(answers[i].answered);
      candidate.refusal = std::move(answers[i].refusal);
      for (auto& source : answers[i].sources) candidate.sources.push_back(std::move(source));
      if (!candidate.refusal) candidate.passed.push_back("blind");
    }
  }

  void criticize(size_t begin) {
    const auto open = open_candidates(candidates_, begin);
    std::vector<double> agreements;
    for (const auto* candidate : open) {
      if (candidate->agreement) agreements.push_back(*candidate->agreement);
    }
    auto judgements = judge_pairs(task_, config_, pairs_of(open), agreements, critic_);
    for (size_t i = 0; i < open.size(); ++i) {
      Candidate& candidate = *open[i];
      candidate.scores = std::move(judgements[i].scores);
      candidate.measured = std::move(judgements[i].measured);
      candidate.critique = std::move(judgements[i].critique);
      candidate.refusal = std::move(judgements[i].refusal);
      if (judgements[i].source) candidate.sources.push_back(*judgements[i].source);
      if (!candidate.refusal) candidate.passed.push_back("critique");
    }
  }

  const Task task_;
  const SynthConfig& config_;
  const uint64_t seed_;
  const SynthHelpers& helpers_;
  AnswerStore& critic_;
  Writer writer_;
  std::vector<PlannedUnit> units_;
  int64_t num_subtopics_ = 0;
  std::vector<Candidate> candidates_;
};

}  // namespace

SynthOutcome self_instruct(const Task& task, const SynthConfig& config, uint64_t seed, const SynthHelpers& helpers) {
  if (task.seeds.empty()) {
    throw Error(ErrorKind::kInput, task.name, "the task has no seeds", "write three or more under 'seeds'");
  }
  return Run(task, config, seed, helpers).work();
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

}  // namespace potstill
