// Grammar: a context-free grammar over bytes, and a matcher that says byte by byte what may come next. Answers that
// must be JSON are held to one (json_grammar.h); token_constraint.h lifts it from bytes to a vocabulary's tokens.
#pragma once

#include <bitset>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace potstill {

using ByteSet = std::bitset<256>;

class Grammar {
 public:
  using RuleId = int32_t;
  // One place of a rule: a byte out of a set, or all of another rule.
  struct Element {
    ByteSet bytes;
    RuleId rule = -1;  // >= 0: this rule instead
  };
  using Sequence = std::vector<Element>;

  RuleId add_rule();                                     // without alternatives it matches nothing
  void add_alternative(RuleId rule, Sequence sequence);  // Throws Error(kInput) past kMaxElements in all
  void set_start(RuleId rule) { start_ = rule; }
  RuleId include(const Grammar& other);                            // its rules beside these; returns its start
  void surround(std::string_view before, std::string_view after);  // fixed text around the whole

  static Element one_of(std::string_view bytes);
  static Element range(uint8_t first, uint8_t last);
  static Element rule(RuleId id) { return {.bytes = {}, .rule = id}; }
  static Sequence text(std::string_view literal);

  static constexpr size_t kMaxElements = 100'000;  // a schema of some thousand fields; 4 MB

 private:
  friend class GrammarMatcher;
  std::vector<std::vector<Sequence>> rules_;
  size_t num_elements_ = 0;
  RuleId start_ = 0;
};

// Where in a grammar a text is. A state is the set of stacks (what still has to come, innermost first) that the bytes
// so far allow; stacks share their tails, and each step from a stack is worked out once.
class GrammarMatcher {
 public:
  // Borrows the grammar, which must not be left-recursive.
  explicit GrammarMatcher(const Grammar& grammar);

  using State = std::vector<int32_t>;
  State start();
  // The state after one more byte; empty when the byte may not come.
  State step(const State& state, uint8_t byte);
  bool can_end(const State& state) const;
  // Nothing may follow: the text is complete.
  bool must_end(const State& state) const { return state.size() == 1 && can_end(state); }

  // Forgets all stacks that `state` does not need, so that memory does not grow with the text.
  void collect(State& state);

 private:
  struct Position {  // inside an alternative; index == its length: at its end
    int32_t rule, alternative, index;
    bool operator==(const Position&) const = default;
  };
  struct Stack {
    Position next;
    int32_t below;  // another stack, or kBottom
    int32_t depth;
  };
  static constexpr int32_t kBottom = -1;
  static constexpr int32_t kDone = 0;        // the stack with nothing left
  static constexpr int32_t kMaxDepth = 400;  // rules inside rules: some 100 levels of JSON

  int32_t intern(Position next, int32_t below);
  void expand(Position next, int32_t below, State& out, int recursion);

  const Grammar& grammar_;
  std::vector<Stack> stacks_;
  std::unordered_map<uint64_t, std::vector<int32_t>> by_hash_;
  std::unordered_map<uint64_t, State> steps_;  // (stack, byte) -> the state it leads to
};

}  // namespace potstill
