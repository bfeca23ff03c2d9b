#include "potstill/nn/generator.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "potstill/base/error.h"
#include "potstill/base/interrupt.h"
#include "potstill/lm/request_tokens.h"
#include "potstill/lm/sampling.h"
#include "potstill/lm/schema_constraints.h"
#include "potstill/lm/token_constraint.h"
#include "potstill/nn/cached_decoder.h"

namespace potstill {
namespace {

// A request while it is answered.
class Answer {
 public:
  Answer(const ModelPackage& package, const GenerateRequest& request, size_t index, std::vector<TokenId> prompt,
         int64_t max_new_tokens, std::optional<TokenConstraint> constraint)
      : index_(index),
        request_(request),
        context_(std::move(prompt)),
        max_new_tokens_(max_new_tokens),
        sampler_(request.sampling),
        constraint_(std::move(constraint)),
        decoder_(*package.tokenizer) {
    result_.prompt_tokens = static_cast<int64_t>(context_.size());
  }

  size_t index() const { return index_; }
  const std::vector<TokenId>& context() const { return context_; }
  TokenId last_token() const { return context_.back(); }

  // Draws the next token out of logits [V]. True when the answer is complete.
  bool take(std::span<const float> logits, std::span<const TokenId> stop_ids) {
    const auto num_prompt = static_cast<size_t>(result_.prompt_tokens);
    const TokenId id = constraint_ ? sample_constrained(sampler_, logits, context_, num_prompt, *constraint_)
                                   : sampler_.sample(logits, context_);
    if (std::find(stop_ids.begin(), stop_ids.end(), id) != stop_ids.end()) return end(FinishReason::kStop);
    context_.push_back(id);
    result_.tokens.push_back(id);
    const size_t seen = result_.text.size();
    result_.text += decoder_.push(id);
    if (cut_at_stop(seen)) return true;
    if (constraint_) {
      constraint_->accept(id);
      if (constraint_->finished()) return end(FinishReason::kStop);
    }
    return static_cast<int64_t>(result_.tokens.size()) >= max_new_tokens_ && end(FinishReason::kLength);
  }

  GenerateResult result() && { return std::move(result_); }

 private:
  bool end(FinishReason reason) {
    const size_t seen = result_.text.size();
    result_.text += decoder_.finish();
    result_.finish = reason;
    cut_at_stop(seen);
    return true;
  }

  // Text before `seen` holds no stop string, but may hold the beginning of one.
  bool cut_at_stop(size_t seen) {
    size_t cut = std::string::npos;
    for (const std::string& stop : request_.stop) {
      if (stop.empty()) continue;
      const size_t from = seen - std::min(seen, stop.size() - 1);
      cut = std::min(cut, result_.text.find(stop, from));
    }
    if (cut == std::string::npos) return false;
    result_.text.resize(cut);
    result_.finish = FinishReason::kStop;
    return true;
  }

  size_t index_;
  const GenerateRequest& request_;
  std::vector<TokenId> context_;  // prompt and answer so far
  int64_t max_new_tokens_;
  Sampler sampler_;
  std::optional<TokenConstraint> constraint_;
  StreamDecoder decoder_;
  GenerateResult result_;
};

std::span<const float> as_span(const at::Tensor& logits) {
  return {logits.const_data_ptr<float>(), static_cast<size_t>(logits.numel())};
}

}  // namespace

std::vector<GenerateResult> generate_texts(const ModelPackage& package, const Transformer& model, int64_t num_slots,
                                           std::span<const GenerateRequest> requests,
                                           const std::function<void(size_t, const GenerateResult&)>& on_done) {
  std::vector<GenerateResult> results(requests.size());
  if (requests.empty()) return results;
  const std::vector<TokenId> stop_ids = stop_token_ids(package);
  const int64_t max_context = package.config.max_position_embeddings;

  std::vector<std::vector<TokenId>> prompts;
  int64_t capacity = 0;
  for (const GenerateRequest& request : requests) {
    prompts.push_back(prompt_tokens(*package.tokenizer, package.chat_template, request.messages, request.prompt,
                                    request.answer_prefix));
    const auto length = static_cast<int64_t>(prompts.back().size());
    if (length == 0 || length >= max_context) {
      throw Error(ErrorKind::kInput, package.path.string(),
                  fmt::format("a prompt has {} tokens but the model's context is {}", length, max_context),
                  length == 0 ? "give some text" : "shorten the prompt");
    }
    capacity = std::max(capacity, std::min(length + request.max_new_tokens, max_context));
  }

  SchemaConstraints schemas(*package.tokenizer, package.config.vocab_size, stop_ids);
  CachedDecoder decoder(model, num_slots, capacity);
  std::vector<std::unique_ptr<Answer>> slots(static_cast<size_t>(num_slots));
  size_t next = 0, done = 0;
  const auto finish = [&](std::unique_ptr<Answer>& answer) {
    const size_t index = answer->index();
    results[index] = std::move(*answer).result();
    answer.reset();
    ++done;
    if (on_done) on_done(index, results[index]);
  };
  const auto refill = [&](size_t slot) {
    while (!slots[slot] && next < requests.size()) {
      const size_t index = next++;
      const int64_t room = max_context - static_cast<int64_t>(prompts[index].size());
      const auto logits = decoder.prefill(static_cast<int64_t>(slot), prompts[index]).cpu();
      slots[slot] = std::make_unique<Answer>(package, requests[index], index, std::move(prompts[index]),
                                             std::min(requests[index].max_new_tokens, room),
                                             schemas.constraint(requests[index].json_schema));
      if (slots[slot]->take(as_span(logits), stop_ids)) finish(slots[slot]);
    }
  };

  std::vector<int32_t> tokens(slots.size());
  while (done < requests.size()) {
    for (size_t slot = 0; slot < slots.size(); ++slot) refill(slot);
    if (done == requests.size()) break;
    throw_if_interrupted();
    for (size_t slot = 0; slot < slots.size(); ++slot) tokens[slot] = slots[slot] ? slots[slot]->last_token() : -1;
    const auto logits = decoder.step(tokens).cpu();
    for (size_t slot = 0; slot < slots.size(); ++slot) {
      if (slots[slot] && slots[slot]->take(as_span(logits[static_cast<int64_t>(slot)]), stop_ids)) finish(slots[slot]);
    }
  }
  return results;
}

}  // namespace potstill
