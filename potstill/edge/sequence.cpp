#include "potstill/edge/sequence.h"

#include <algorithm>
#include <utility>

namespace potstill::edge {

Sequence::Sequence(TextEngine::RequestId sequence_id, size_t index, EngineRequest engine_request,
                   TextEngine::OnEvent on_event, const Tokenizer& tokenizer, std::span<const TokenId> stop_ids,
                   std::shared_ptr<const VocabularyBytes> vocabulary)
    : id(sequence_id),
      request(std::move(engine_request)),
      index_(index),
      on_event_(std::move(on_event)),
      tokens_(request.prompt),
      stop_ids_(stop_ids.begin(), stop_ids.end()),
      sampler_(request.sampling),
      decoder_(tokenizer),
      stops_(request.stop) {
  if (request.grammar) constraint_.emplace(request.grammar, std::move(vocabulary), stop_ids_);
}

void Sequence::send_prompt(std::vector<TokenLogProbs> log_probs) {
  EngineEvent event;
  event.prompt = std::move(log_probs);
  on_event_(index_, std::move(event));
}

void Sequence::next_token(std::span<const float> logits, bool context_is_full) {
  const size_t num_prompt = request.prompt.size();
  const TokenId token = constraint_ ? sample_constrained(sampler_, logits, tokens_, num_prompt, *constraint_)
                                    : sampler_.sample(logits, tokens_, num_prompt);
  EngineEvent event;
  event.token = request.num_top >= 0 ? token_log_probs(logits, token, request.num_top) : TokenLogProbs{.id = token};
  if (std::find(stop_ids_.begin(), stop_ids_.end(), token) != stop_ids_.end()) {
    event.is_end_of_turn = true;
    on_event_(index_, std::move(event));
    return finish_text(EngineFinish::kStop);
  }
  tokens_.push_back(token);
  ++turn_tokens;
  event.text = stops_.push(decoder_.push(token));
  on_event_(index_, std::move(event));
  if (constraint_) constraint_->accept(token);
  if (stops_.found()) return end(EngineFinish::kStop);
  if (constraint_ && constraint_->finished()) return finish_text(EngineFinish::kStop);
  if (num_new() >= request.max_new_tokens || context_is_full) finish_text(EngineFinish::kLength);
}

// What the decoder or the stop strings still held back.
void Sequence::finish_text(EngineFinish finish) {
  EngineEvent event;
  event.text = stops_.push(decoder_.finish());
  if (!stops_.found()) event.text += stops_.finish();
  if (!event.text.empty()) on_event_(index_, std::move(event));
  end(finish);
}

void Sequence::end(EngineFinish finish, std::exception_ptr error) {
  if (std::exchange(ended, true)) return;
  EngineEvent event;
  event.is_last = true;
  event.finish = finish;
  event.prompt_tokens = static_cast<int64_t>(request.prompt.size());
  event.cached_tokens = cached_tokens;
  event.new_tokens = num_new();
  event.error = std::move(error);
  on_event_(index_, std::move(event));
  on_event_ = {};
}

TokenLogProbs token_log_probs(std::span<const float> logits, TokenId id, int num_top) {
  const auto total = static_cast<float>(log_sum_exp(logits));
  TokenLogProbs result{.id = id, .log_prob = logits[static_cast<size_t>(id)] - total};
  const auto better = [](const auto& a, const auto& b) {
    return a.second > b.second || (a.second == b.second && a.first < b.first);
  };
  auto& top = result.top;  // a heap whose front is the worst that is kept
  for (size_t i = 0; num_top > 0 && i < logits.size(); ++i) {
    const std::pair<TokenId, float> candidate(static_cast<TokenId>(i), logits[i] - total);
    if (top.size() == static_cast<size_t>(num_top)) {
      if (!better(candidate, top.front())) continue;
      std::pop_heap(top.begin(), top.end(), better);
      top.pop_back();
    }
    top.push_back(candidate);
    std::push_heap(top.begin(), top.end(), better);
  }
  std::sort_heap(top.begin(), top.end(), better);
  return result;
}

}  // namespace potstill::edge
