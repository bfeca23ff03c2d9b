#include "potstill/synth/selection.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>
#include <vector>

#include "potstill/base/sha256.h"
#include "potstill/synth/novelty.h"
#include "potstill/synth/render.h"
#include "potstill/synth/words.h"

namespace potstill {
namespace {

std::string joined_words(std::string_view text) {
  std::string joined;
  for (const auto& word : words_of(text)) joined += word + " ";
  return joined;
}

bool is_selection_rule(std::string_view rule) {
  return rule == "not_new" || rule == "not_needed" || rule == "letter" || rule == "longest_option" ||
         rule == "subtopic_quota";
}

// How much of D_gen each letter, each subtopic and the longest option may have.
class Balance {
 public:
  Balance(const Task& task, int64_t most) : task_(task), most_(static_cast<double>(most)) {
    for (const auto& subtopic : task.subtopics) {
      if (subtopic.quota > 0) quotas_[subtopic.name] = subtopic.quota;
    }
  }

  std::optional<Refusal> refuse(const Pair& pair) const {
    const auto quota = quotas_.find(pair.unit.subtopic);
    const int64_t of_subtopic = quota == quotas_.end() ? at_most(task_.filter.max_subtopic_share) : quota->second;
    if (count(subtopics_, pair.unit.subtopic) >= of_subtopic) {
      return Refusal{"subtopic_quota", fmt::format("{} pairs of '{}' are kept", of_subtopic, pair.unit.subtopic)};
    }
    if (pair.options.empty()) return std::nullopt;
    const double share = 1.0 / static_cast<double>(pair.options.size());
    // Labels and yes or no are balanced as well; their order is given and says nothing.
    const int64_t of_letter = at_most(share * (1.0 + task_.filter.max_letter_excess));
    if (count(letters_, pair.key) >= of_letter) {
      return Refusal{"letter", fmt::format("{} is right in {} pairs already", option_letter(pair.key), of_letter)};
    }
    constexpr double kSlack = 0.1;  // of two options one is the longer half of the time
    const int64_t of_longest = at_most(std::max(task_.filter.max_longest_share, share + kSlack));
    if (task_.choices.empty() && is_longest(pair) && longest_ >= of_longest) {
      return Refusal{"longest_option", fmt::format("the right option is the longest in {} pairs already", of_longest)};
    }
    return std::nullopt;
  }

  void add(const Pair& pair) {
    ++subtopics_[pair.unit.subtopic];
    if (pair.options.empty()) return;
    ++letters_[pair.key];
    longest_ += is_longest(pair);
  }

 private:
  int64_t at_most(double share) const { return static_cast<int64_t>(std::ceil(share * most_ - 1e-9)); }

  static bool is_longest(const Pair& pair) {
    return std::ranges::all_of(pair.options, [&](const std::string& option) {
      return option.size() < pair.answer.size() || option == pair.answer;
    });
  }

  template <class Key>
  static int64_t count(const std::map<Key, int64_t>& counts, const Key& key) {
    const auto found = counts.find(key);
    return found == counts.end() ? 0 : found->second;
  }

  const Task& task_;
  double most_;
  std::map<std::string, int64_t> subtopics_, quotas_;
  std::map<int64_t, int64_t> letters_;
  int64_t longest_ = 0;
};

std::string whole_text(const Task& task, const Pair& pair) {
  return fmt::format("{} {}", asked_text(task, pair), pair.answer);
}

}  // namespace

std::string asked_text(const Task& task, const Pair& pair) {
  if (!task.writes_question()) return pair.context.empty() ? pair.unit.fact : pair.context;
  return pair.context.empty() ? pair.question : fmt::format("{} {}", pair.context, pair.question);
}

int64_t select_best(const Task& task, int64_t most, std::span<Candidate> candidates) {
  std::vector<Candidate*> passed;
  for (auto& candidate : candidates) {
    if (candidate.refusal && !is_selection_rule(candidate.refusal->rule)) continue;
    candidate.refusal.reset();
    passed.push_back(&candidate);
  }
  std::ranges::sort(passed, {}, [](const Candidate* c) { return std::pair(-c->scores.at("score"), c->id); });
  NoveltyPool pool(task.filter.max_rouge, task.filter.max_jaccard);
  for (const auto& seed : task.seeds) {
    const Pair pair{.question = seed.question, .answer = seed.answer, .context = seed.context};
    pool.add(asked_text(task, pair), whole_text(task, pair));
  }
  Balance balance(task, most);
  int64_t kept = 0;
  for (auto* candidate : passed) {
    const Pair& pair = candidate->pair;
    if (kept == most) {
      candidate->refusal = {"not_needed", "passed, but enough others scored higher"};
    } else if (const auto near = pool.nearest(asked_text(task, pair), whole_text(task, pair))) {
      candidate->refusal = {"not_new", fmt::format("near to '{}'", *near)};
    } else if (auto refusal = balance.refuse(pair)) {
      candidate->refusal = std::move(refusal);
    } else {
      pool.add(asked_text(task, pair), whole_text(task, pair));
      balance.add(pair);
      ++kept;
    }
  }
  return kept;
}

void split_heldout(std::vector<Candidate>& accepted, double share) {
  if (share <= 0.0) return;
  constexpr size_t kLeastHeldout = 8;
  std::map<std::string, std::vector<Candidate*>> groups;  // by hash: what rests on one fact stays together
  for (auto& candidate : accepted) {
    const auto& pair = candidate.pair;
    const std::string rests_on = pair.unit.fact.empty()
                                     ? joined_words(pair.context + (pair.context.empty() ? "" : " ") + pair.question)
                                     : pair.unit.fact;
    groups[sha256_hex("split\n" + rests_on)].push_back(&candidate);
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

}  // namespace potstill
