#include "potstill/lm/grammar.h"

#include <fmt/format.h>

#include <algorithm>

#include "potstill/base/error.h"

namespace potstill {

Grammar::RuleId Grammar::add_rule() {
  rules_.emplace_back();
  return static_cast<RuleId>(rules_.size() - 1);
}

void Grammar::add_alternative(RuleId rule, Sequence sequence) {
  num_elements_ += sequence.size() + 1;
  if (num_elements_ > kMaxElements) {
    throw Error(ErrorKind::kInput, "grammar", fmt::format("has more than {} elements", kMaxElements),
                "ask for a smaller schema: fewer repetitions and shorter enums");
  }
  rules_.at(static_cast<size_t>(rule)).push_back(std::move(sequence));
}

Grammar::RuleId Grammar::include(const Grammar& other) {
  const auto offset = static_cast<RuleId>(rules_.size());
  for (const auto& rule_of_other : other.rules_) {
    const RuleId id = add_rule();
    for (Sequence sequence : rule_of_other) {
      for (Element& element : sequence) {
        if (element.rule >= 0) element.rule += offset;
      }
      add_alternative(id, std::move(sequence));
    }
  }
  return other.start_ + offset;
}

void Grammar::surround(std::string_view before, std::string_view after) {
  Sequence whole = text(before), end = text(after);
  whole.push_back(rule(start_));
  whole.insert(whole.end(), end.begin(), end.end());
  const RuleId start = add_rule();
  add_alternative(start, std::move(whole));
  start_ = start;
}

Grammar::Element Grammar::one_of(std::string_view bytes) {
  Element element;
  for (const char c : bytes) element.bytes.set(static_cast<uint8_t>(c));
  return element;
}

Grammar::Element Grammar::range(uint8_t first, uint8_t last) {
  Element element;
  for (int c = first; c <= last; ++c) element.bytes.set(static_cast<size_t>(c));
  return element;
}

Grammar::Sequence Grammar::text(std::string_view literal) {
  Sequence sequence;
  for (const char c : literal) sequence.push_back(one_of(std::string_view(&c, 1)));
  return sequence;
}

GrammarMatcher::GrammarMatcher(const Grammar& grammar) : grammar_(grammar) {
  stacks_.push_back({{-1, -1, -1}, kBottom, 0});  // kDone
}

GrammarMatcher::State GrammarMatcher::start() {
  State state;
  const auto& alternatives = grammar_.rules_[static_cast<size_t>(grammar_.start_)];
  for (size_t i = 0; i < alternatives.size(); ++i) {
    expand({grammar_.start_, static_cast<int32_t>(i), 0}, kDone, state, 0);
  }
  return state;
}

GrammarMatcher::State GrammarMatcher::step(const State& state, uint8_t byte) {
  State next;
  for (const int32_t id : state) {
    if (id == kDone) continue;
    const uint64_t key = static_cast<uint64_t>(id) << 8 | byte;
    auto known = steps_.find(key);
    if (known == steps_.end()) {
      State found;
      const Stack stack = stacks_[static_cast<size_t>(id)];
      const auto& sequence =
          grammar_.rules_[static_cast<size_t>(stack.next.rule)][static_cast<size_t>(stack.next.alternative)];
      if (sequence[static_cast<size_t>(stack.next.index)].bytes.test(byte)) {
        expand({stack.next.rule, stack.next.alternative, stack.next.index + 1}, stack.below, found, 0);
      }
      known = steps_.emplace(key, std::move(found)).first;
    }
    for (const int32_t reached : known->second) {
      if (std::find(next.begin(), next.end(), reached) == next.end()) next.push_back(reached);
    }
  }
  return next;
}

bool GrammarMatcher::can_end(const State& state) const {
  return std::find(state.begin(), state.end(), kDone) != state.end();
}

// Puts every stack that begins with a byte and continues as (next, then below) into `out`.
void GrammarMatcher::expand(Position next, int32_t below, State& out, int recursion) {
  if (recursion > kMaxDepth) return;
  const auto& rule = grammar_.rules_[static_cast<size_t>(next.rule)];
  const auto& sequence = rule[static_cast<size_t>(next.alternative)];
  if (static_cast<size_t>(next.index) == sequence.size()) {
    if (below == kDone) {
      if (std::find(out.begin(), out.end(), kDone) == out.end()) out.push_back(kDone);
      return;
    }
    const Stack parent = stacks_[static_cast<size_t>(below)];
    return expand(parent.next, parent.below, out, recursion + 1);
  }
  const Grammar::Element& element = sequence[static_cast<size_t>(next.index)];
  if (element.rule < 0) {
    const int32_t id = intern(next, below);
    if (id >= 0 && std::find(out.begin(), out.end(), id) == out.end()) out.push_back(id);
    return;
  }
  // A rule at the very end leaves nothing to come back to: lists do not grow the stack.
  const bool is_last = static_cast<size_t>(next.index) + 1 == sequence.size();
  const int32_t rest = is_last ? below : intern({next.rule, next.alternative, next.index + 1}, below);
  if (rest < 0) return;  // too deep: this way is closed, the others stay
  const auto& alternatives = grammar_.rules_[static_cast<size_t>(element.rule)];
  for (size_t i = 0; i < alternatives.size(); ++i) {
    expand({element.rule, static_cast<int32_t>(i), 0}, rest, out, recursion + 1);
  }
}

int32_t GrammarMatcher::intern(Position next, int32_t below) {
  const int32_t depth = stacks_[static_cast<size_t>(below)].depth + 1;
  if (depth > kMaxDepth) return -1;
  const uint64_t hash =
      ((static_cast<uint64_t>(next.rule) * 1'000'003 + static_cast<uint64_t>(next.alternative)) * 1'000'003 +
       static_cast<uint64_t>(next.index)) *
          1'000'003 +
      static_cast<uint64_t>(below);
  auto& bucket = by_hash_[hash];
  for (const int32_t id : bucket) {
    const Stack& stack = stacks_[static_cast<size_t>(id)];
    if (stack.next == next && stack.below == below) return id;
  }
  stacks_.push_back({next, below, depth});
  bucket.push_back(static_cast<int32_t>(stacks_.size() - 1));
  return bucket.back();
}

void GrammarMatcher::collect(State& state) {
  if (stacks_.size() + steps_.size() < 200'000) return;  // some 20 MB
  std::vector<Stack> old;
  old.swap(stacks_);
  by_hash_.clear();
  steps_.clear();
  stacks_.push_back(old[kDone]);
  for (int32_t& id : state) {
    std::vector<int32_t> chain;  // from the top down
    for (int32_t at = id; at != kDone; at = old[static_cast<size_t>(at)].below) chain.push_back(at);
    int32_t below = kDone;
    for (auto at = chain.rbegin(); at != chain.rend(); ++at) below = intern(old[static_cast<size_t>(*at)].next, below);
    id = below;
  }
}

}  // namespace potstill
