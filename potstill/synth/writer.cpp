#include "potstill/synth/writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>
#include <tuple>

#include "potstill/base/rng.h"
#include "potstill/base/sha256.h"
#include "potstill/synth/filters.h"
#include "potstill/synth/parse.h"
#include "potstill/synth/selection.h"
#include "potstill/synth/words.h"

namespace potstill {
namespace {

constexpr Part kParts[] = {Part::kContext, Part::kQuestion, Part::kAnswer, Part::kWrong};

std::string joined_words(std::string_view text) {
  std::string joined;
  for (const auto& word : words_of(text)) joined += word + " ";
  return joined;
}

bool has_part(const Pair& pair, Part part) {
  switch (part) {
    case Part::kContext:
      return !pair.context.empty();
    case Part::kQuestion:
      return !pair.question.empty();
    case Part::kAnswer:
      return !pair.answer.empty();
    default:
      return !pair.wrong.empty();
  }
}

// An option without the full stop that some teachers put and others do not.
std::string option_text(const Task& task, std::string text) {
  if (task.filter.answer_shape == "phrase") {
    while (text.ends_with('.') && !text.ends_with("..")) text.pop_back();
  }
  return text;
}

// One of the task's choices in its own spelling, where it is one.
std::string as_choice(const Task& task, const std::string& answer) {
  if (task.choices.empty()) return answer;
  const auto choice = parse_choice(answer, task.choices);
  return choice ? task.choices[static_cast<size_t>(*choice)] : answer;
}

void set_part(const Task& task, Pair& pair, Part part, const std::string& text, bool truncated) {
  switch (part) {
    case Part::kContext:
      pair.context = clean_answer(text);
      break;
    case Part::kQuestion:
      pair.question = clean_answer(text);
      break;
    case Part::kAnswer:
      pair.answer = as_choice(task, option_text(task, clean_answer(text)));
      break;
    default:
      pair.wrong = parse_options(text, truncated);
  }
}

// At most as many as are wanted, without those that say what another says already.
void tidy_wrong(const Task& task, Pair& pair) {
  std::set<std::string> seen{joined_words(pair.answer)};
  std::vector<std::string> kept;
  for (auto& option : pair.wrong) {
    option = option_text(task, option);
    if (kept.size() + 1 == static_cast<size_t>(task.options_of_a_pair())) break;
    if (!option.empty() && seen.insert(joined_words(option)).second) kept.push_back(std::move(option));
  }
  pair.wrong = std::move(kept);
}

}  // namespace

std::string candidate_id(const Task& task, const Pair& pair) {
  const auto text = nlohmann::json({task.name, pair.unit.subtopic, pair.unit.fact, pair.unit.label, pair.context,
                                    pair.question, pair.answer, pair.wrong})
                        .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return sha256_hex(text).substr(0, 16);
}

std::vector<Candidate*> open_candidates(std::vector<Candidate>& candidates, size_t begin) {
  std::vector<Candidate*> open;
  for (size_t i = begin; i < candidates.size(); ++i) {
    if (!candidates[i].refusal) open.push_back(&candidates[i]);
  }
  return open;
}

// Named after what is asked about, so that another candidate more or less moves no one else's draws.
uint64_t Writer::stream(const Candidate& candidate, std::string_view what) const {
  const Unit& unit = candidate.pair.unit;
  const std::string label = unit.label.empty() ? "" : unit.label + "/";
  return derive_seed(seed_,
                     fmt::format("synth/{}/{}/{}/{}{}", what, unit.subtopic, unit.fact, label, candidate.attempt));
}

void Writer::write(std::vector<Candidate>& candidates, size_t begin) {
  for (auto& candidate : std::span(candidates).subspan(begin)) {
    candidate.seeds = shown_seeds(task_, candidate.pair.unit, candidate.round);
  }
  if (config_.writing == "json") ask_items(open_candidates(candidates, begin));
  for (const Part part : kParts) {
    if (part == Part::kWrong && task_.has_options() && task_.distractors == "borrowed") {
      borrow_wrong(candidates, open_candidates(candidates, begin));
    }
    if (writes(task_, part)) ask_part(open_candidates(candidates, begin), part);
  }
  for (auto* candidate : open_candidates(candidates, begin)) {
    candidate->passed.push_back("parts");
    if (task_.has_options()) finish_options(*candidate);
  }
  for (auto& candidate : std::span(candidates).subspan(begin)) candidate.id = candidate_id(task_, candidate.pair);
}

void Writer::ask_items(std::vector<Candidate*> open) {
  std::vector<GenerateRequest> requests;
  for (const auto* candidate : open) {
    requests.push_back(
        item_request(task_, config_, candidate->pair.unit, candidate->round, stream(*candidate, "item")));
  }
  std::vector<std::string> keys;
  for (const Part part : kParts) {
    if (writes(task_, part)) keys.emplace_back(part_key(part));
  }
  const auto answers = teacher_.generate("items", requests);
  for (size_t i = 0; i < open.size(); ++i) {
    Candidate& candidate = *open[i];
    candidate.sources.push_back({"item", answers[i].key, answers[i].prompt_hash});
    const ItemParts parts = parse_item(answers[i].text, keys);
    candidate.repaired = parts.repaired;
    for (const Part part : kParts) {
      if (!writes(task_, part)) continue;
      const std::string key(part_key(part));
      if (const auto text = parts.texts.find(key); text != parts.texts.end()) {
        set_part(task_, candidate.pair, part, text->second, /*truncated=*/false);
      } else if (const auto list = parts.lists.find(key); list != parts.lists.end() && part == Part::kWrong) {
        for (const auto& option : list->second) candidate.pair.wrong.push_back(clean_answer(option));
      }
    }
    // What is missing is asked for by itself, but not for an answer that holds nothing of an item.
    if (parts.texts.empty() && parts.lists.empty()) {
      candidate.refusal = {"format", fmt::format("no part of an item: {:.60}", answers[i].text)};
    }
  }
}

void Writer::ask_part(std::vector<Candidate*> open, Part part) {
  std::vector<Candidate*> lacking;
  std::vector<GenerateRequest> requests;
  for (auto* candidate : open) {
    if (has_part(candidate->pair, part)) continue;
    // An answer hangs on its question alone, so that the same question is not answered twice.
    const int64_t round = part == Part::kAnswer ? 0 : candidate->round;
    lacking.push_back(candidate);
    requests.push_back(part_request(task_, config_, part, candidate->pair, round, stream(*candidate, part_key(part))));
  }
  const auto answers = teacher_.generate(fmt::format("{}s", part_key(part)), requests);
  std::set<const Candidate*> checked;
  for (size_t i = 0; i < lacking.size(); ++i) {
    Candidate& candidate = *lacking[i];
    const bool truncated = answers[i].finish == FinishReason::kLength;
    candidate.sources.push_back({std::string(part_key(part)), answers[i].key, answers[i].prompt_hash});
    set_part(task_, candidate.pair, part, answers[i].text, truncated);
    check_part(candidate, part, truncated);
    checked.insert(&candidate);
  }
  for (auto* candidate : open) {
    if (!checked.contains(candidate)) check_part(*candidate, part, /*truncated=*/false);
  }
}

void Writer::check_part(Candidate& candidate, Part part, bool truncated) {
  Pair& pair = candidate.pair;
  if (part == Part::kContext) candidate.refusal = refuse_context(task_, pair.context, truncated);
  if (part == Part::kQuestion) candidate.refusal = refuse_question(task_, pair.question, truncated);
  if (part == Part::kAnswer) {
    candidate.refusal = refuse_answer(task_, {pair.unit.fact, pair.question, pair.answer, pair.context}, truncated);
  }
  if (part == Part::kWrong) {
    tidy_wrong(task_, pair);
    candidate.refusal = refuse_options(task_, pair.answer, pair.wrong);
  }
  // The very question again costs no answer; what is only near is left to select_best, which keeps the better one.
  const Part last_asked = task_.writes_question() ? Part::kQuestion : Part::kContext;
  if (part == last_asked && !candidate.refusal && !asked_.insert(joined_words(asked_text(task_, pair))).second) {
    candidate.refusal = {"duplicate", "asked before"};
  }
}

// Right answers to other questions are wrong ones to this: of the same form, and well written. Those of the same
// subtopic and of nearly the same length come first; which of equals, a hash of both decides.
void Writer::borrow_wrong(std::span<Candidate> all, std::vector<Candidate*> open) const {
  struct Offer {
    std::string subtopic, fact, answer;
  };
  std::vector<Offer> offers;
  std::set<std::string> seen;
  for (const auto& candidate : all) {
    const Pair& pair = candidate.pair;
    const bool usable = !candidate.refusal || !candidate.passed.empty();  // its parts are sound, whatever its score
    if (usable && !pair.answer.empty() && seen.insert(joined_words(pair.answer)).second) {
      offers.push_back({pair.unit.subtopic, pair.unit.fact, pair.answer});
    }
  }
  for (const auto& seed : task_.seeds) {
    if (seen.insert(joined_words(seed.answer)).second) offers.push_back({seed.topic, seed.fact, seed.answer});
  }
  for (auto* candidate : open) {
    Pair& pair = candidate->pair;
    std::vector<std::tuple<bool, size_t, uint64_t, const Offer*>> ranked;
    for (const auto& offer : offers) {
      // What the fact or the question says may be right here as well.
      const std::string words = " " + joined_words(offer.answer);
      const std::string about = " " + joined_words(pair.unit.fact + " " + pair.context + " " + pair.question);
      if (about.find(words) != std::string::npos || joined_words(pair.answer) == joined_words(offer.answer)) continue;
      if (!pair.unit.fact.empty() && offer.fact == pair.unit.fact) continue;
      const size_t size = offer.answer.size(), own = pair.answer.size();
      ranked.emplace_back(offer.subtopic != pair.unit.subtopic, (size > own ? size - own : own - size) / 8,
                          derive_seed(seed_, fmt::format("synth/borrow/{}/{}", pair.question, offer.answer)), &offer);
    }
    std::ranges::sort(ranked);
    for (const auto& offer : ranked) {
      if (pair.wrong.size() + 1 == static_cast<size_t>(task_.options_of_a_pair())) break;
      pair.wrong.push_back(std::get<3>(offer)->answer);
    }
    candidate->refusal = refuse_options(task_, pair.answer, pair.wrong);
  }
}

// Options in the order in which they are shown: drawn from the pair's own words, so that no other pair moves it. Given
// choices keep theirs.
void Writer::finish_options(Candidate& candidate) const {
  Pair& pair = candidate.pair;
  if (!task_.choices.empty()) {
    pair.options = task_.choices;
  } else {
    pair.options = pair.wrong;
    pair.options.push_back(pair.answer);
    std::ranges::sort(pair.options);
    Rng(seed_, "synth/options/" + candidate_id(task_, pair)).shuffle(pair.options);
  }
  pair.key = std::ranges::find(pair.options, pair.answer) - pair.options.begin();
  candidate.passed.push_back("options");
}

}  // namespace potstill
