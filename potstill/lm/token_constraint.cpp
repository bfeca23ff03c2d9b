#include "potstill/lm/token_constraint.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "potstill/base/check.h"

namespace potstill {

VocabularyBytes::VocabularyBytes(const Tokenizer& tokenizer, int64_t vocab_size)
    : bytes_(static_cast<size_t>(vocab_size)) {
  const int64_t count = std::min(vocab_size, tokenizer.size());
  for (TokenId id = 0; id < count; ++id) {
    auto& bytes = bytes_[static_cast<size_t>(id)];
    if (!tokenizer.is_special(id)) bytes = tokenizer.decode_bytes(std::span(&id, 1), true);
    if (!bytes.empty()) sorted_.push_back(id);
  }
  const auto bytes_of = [this](TokenId id) -> const std::string& { return bytes_[static_cast<size_t>(id)]; };
  std::sort(sorted_.begin(), sorted_.end(), [&](TokenId a, TokenId b) { return bytes_of(a) < bytes_of(b); });
  shared_.resize(sorted_.size());
  for (size_t i = 1; i < sorted_.size(); ++i) {
    const auto &a = bytes_of(sorted_[i - 1]), &b = bytes_of(sorted_[i]);
    const auto end =
        std::mismatch(a.begin(), a.begin() + static_cast<ptrdiff_t>(std::min(a.size(), b.size())), b.begin());
    shared_[i] = static_cast<uint32_t>(end.first - a.begin());
  }
}

TokenConstraint::TokenConstraint(std::shared_ptr<const Grammar> grammar,
                                 std::shared_ptr<const VocabularyBytes> vocabulary, std::vector<TokenId> stop_ids)
    : grammar_(std::move(grammar)),
      vocabulary_(std::move(vocabulary)),
      stop_ids_(std::move(stop_ids)),
      matcher_(*grammar_),
      state_(matcher_.start()) {}

bool TokenConstraint::is_stop(TokenId id) const {
  return std::find(stop_ids_.begin(), stop_ids_.end(), id) != stop_ids_.end();
}

bool TokenConstraint::allows(TokenId id) {
  if (is_stop(id)) return matcher_.can_end(state_);
  const auto& bytes = vocabulary_->bytes_.at(static_cast<size_t>(id));
  if (bytes.empty()) return false;
  GrammarMatcher::State state = state_;
  for (const char byte : bytes) {
    state = matcher_.step(state, static_cast<uint8_t>(byte));
    if (state.empty()) return false;
  }
  return true;
}

void TokenConstraint::accept(TokenId id) {
  if (is_stop(id)) return;
  for (const char byte : vocabulary_->bytes_.at(static_cast<size_t>(id))) {
    state_ = matcher_.step(state_, static_cast<uint8_t>(byte));
  }
  POTSTILL_CHECK(!state_.empty());
  matcher_.collect(state_);
}

bool TokenConstraint::finished() const { return matcher_.must_end(state_); }

void TokenConstraint::mask(std::span<float> logits) {
  std::vector<bool> allowed(logits.size());
  std::vector<GrammarMatcher::State> states{state_};  // after so many bytes of the token before
  const auto& vocabulary = *vocabulary_;
  size_t dead = SIZE_MAX;  // the last token's first `dead` bytes may not come
  for (size_t i = 0; i < vocabulary.sorted_.size(); ++i) {
    const auto id = static_cast<size_t>(vocabulary.sorted_[i]);
    const std::string& bytes = vocabulary.bytes_[id];
    if (vocabulary.shared_[i] >= dead) continue;  // and so may not this one's
    dead = SIZE_MAX;
    states.resize(std::min<size_t>(states.size(), vocabulary.shared_[i] + 1));
    for (size_t n = states.size() - 1; n < bytes.size(); ++n) {
      auto next = matcher_.step(states.back(), static_cast<uint8_t>(bytes[n]));
      if (next.empty()) {
        dead = n + 1;
        break;
      }
      states.push_back(std::move(next));
    }
    if (dead == SIZE_MAX && id < allowed.size()) allowed[id] = true;
  }
  for (const TokenId id : stop_ids_) {
    if (static_cast<size_t>(id) < allowed.size()) allowed[static_cast<size_t>(id)] = matcher_.can_end(state_);
  }
  for (size_t id = 0; id < logits.size(); ++id) {
    if (!allowed[id]) logits[id] = -INFINITY;
  }
}

TokenId sample_constrained(Sampler& sampler, std::span<const float> logits, std::span<const TokenId> context,
                           size_t num_prompt, TokenConstraint& constraint) {
  const TokenId free = sampler.sample(logits, context, num_prompt);
  if (constraint.allows(free)) return free;
  std::vector<float> masked(logits.begin(), logits.end());
  constraint.mask(masked);
  return sampler.sample(masked, context, num_prompt);
}

}  // namespace potstill
