#include "potstill/server/completion.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "potstill/base/error.h"
#include "potstill/base/log.h"
#include "potstill/base/rng.h"
#include "potstill/lm/request_tokens.h"
#include "potstill/server/api_error.h"

namespace potstill::server {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

const char* endpoint_of(const AnswerHead& head) { return head.is_chat ? "chat" : "completions"; }

}  // namespace

Completion::Completion(TextEngine& engine, std::shared_ptr<Metrics> metrics, CompletionRequest request, AnswerHead head,
                       std::shared_ptr<Reply> reply, Clock::time_point arrived)
    : engine_(engine),
      metrics_(std::move(metrics)),
      request_(std::move(request)),
      head_(std::move(head)),
      reply_(std::move(reply)),
      arrived_(arrived) {}

void Completion::start(int64_t max_tokens, Clock::time_point deadline) {
  std::vector<EngineRequest> group;
  try {
    group = engine_requests(max_tokens, deadline);
  } catch (const Error& error) {
    throw api_error(error);
  }
  parts_.resize(group.size());
  const bool has_log_probs = request_.engine.num_top >= 0;
  for (size_t i = 0; i < parts_.size(); ++i) {
    Choice& choice = parts_[i].choice;
    choice.index = static_cast<int64_t>(i);
    choice.has_log_probs = has_log_probs;
    if (request_.echo && !has_log_probs) choice.text = engine_.tokenizer().decode(group[i].prompt, true);
  }
  std::vector<size_t> prompt_sizes;
  for (const auto& each : group) prompt_sizes.push_back(each.prompt.size());
  for (size_t i = 0; i < group.size(); i += static_cast<size_t>(request_.num_choices)) {
    usage_.prompt_tokens += static_cast<int64_t>(prompt_sizes[i]);  // of a prompt's choices, counted once
  }
  const std::lock_guard lock(mutex_);  // the first events wait until ids_ is there
  std::optional<std::vector<TextEngine::RequestId>> ids;
  try {
    ids = engine_.submit(std::move(group), [self = shared_from_this()](size_t index, EngineEvent event) {
      self->on_event(index, std::move(event));
    });
  } catch (const Error& error) {
    throw api_error(error);
  }
  if (!ids) throw ApiError(503, "the queue is full; try again shortly", "", "queue_full");
  ids_ = std::move(*ids);
  reply_->on_gone([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->abandon();
  });
}

std::vector<EngineRequest> Completion::engine_requests(int64_t max_tokens, Clock::time_point deadline) {
  const Tokenizer& tokenizer = engine_.tokenizer();
  std::vector<std::vector<TokenId>> prompts;
  if (request_.is_chat) {
    prompts.push_back(prompt_tokens(tokenizer, engine_.chat_template(), request_.messages, "", ""));
  }
  for (const auto& prompt : request_.prompts) {
    const auto* ids = std::get_if<std::vector<TokenId>>(&prompt);
    prompts.push_back(ids != nullptr
                          ? *ids
                          : prompt_tokens(tokenizer, engine_.chat_template(), {}, std::get<std::string>(prompt), ""));
  }
  std::vector<EngineRequest> group;
  for (const auto& prompt : prompts) {
    const int64_t size = static_cast<int64_t>(prompt.size()), room = engine_.context_length() - size;
    if (size == 0) throw ApiError(400, "the prompt has no tokens", request_.is_chat ? "messages" : "prompt");
    if (room < 0 || (request_.max_tokens && *request_.max_tokens > room)) {
      throw ApiError(400,
                     fmt::format("the context holds {} tokens, but the prompt has {} and the answer may take {}",
                                 engine_.context_length(), size, request_.max_tokens.value_or(1)),
                     request_.is_chat ? "messages" : "prompt", "context_length_exceeded");
    }
    for (int64_t choice = 0; choice < request_.num_choices; ++choice) {
      EngineRequest each = request_.engine;
      each.prompt = prompt;
      each.max_new_tokens = request_.max_tokens.value_or(std::min(max_tokens, room));
      each.deadline = deadline;
      // Choices differ by their draws; without a seed, so do two requests.
      const uint64_t seed = request_.engine.reuse_answers ? std::hash<std::string>()(head_.id) : each.sampling.seed;
      each.sampling.seed = choice == 0 ? seed : derive_seed(seed, fmt::format("choice {}", choice));
      group.push_back(std::move(each));
    }
  }
  return group;
}

void Completion::on_event(size_t index, EngineEvent event) {
  const std::lock_guard lock(mutex_);
  if (over_) return;
  Part& part = parts_[index];
  if (!event.prompt.empty()) {
    // Echoed with log-probabilities: the text is that of the tokens.
    part.choice.log_probs = std::move(event.prompt);
    std::vector<TokenId> ids;
    for (const auto& token : part.choice.log_probs) ids.push_back(token.id);
    part.choice.text = engine_.tokenizer().decode(ids, true);
  }
  if (event.token) add_token(part, event);
  if (!event.is_last) return add_text(part, event.text, false);
  if (event.finish == EngineFinish::kFailed) return fail(event.error);
  end_part(part, event);
}

void Completion::add_token(Part& part, EngineEvent& event) {
  const auto now = Clock::now();
  if (part.last_token == Clock::time_point()) {
    metrics_->first_token_seconds.observe(seconds_since(arrived_));
  } else {
    metrics_->between_tokens_seconds.observe(std::chrono::duration<double>(now - part.last_token).count());
  }
  part.last_token = now;
  // A completion's list has the token that ends it too: scorers count on one entry for each token that was asked for.
  const bool is_listed = part.choice.has_log_probs && (!event.is_end_of_turn || !request_.is_chat);
  if (is_listed) (request_.stream ? part.held_log_probs : part.choice.log_probs).push_back(std::move(*event.token));
}

// Text of the answer, through the parser of calls where tools were offered.
void Completion::add_text(Part& part, const std::string& text, bool is_last) {
  std::string plain = text;
  std::vector<ToolCall> calls;
  if (request_.tools.offered || request_.tools.grammar) {
    auto piece = part.calls.push(text);
    if (is_last) {
      auto rest = part.calls.finish();
      piece.text += rest.text;
      piece.calls.insert(piece.calls.end(), rest.calls.begin(), rest.calls.end());
    }
    plain = std::move(piece.text);
    calls = std::move(piece.calls);
  }
  part.num_calls += static_cast<int64_t>(calls.size());
  if (!request_.stream) {
    part.choice.text += plain;
    part.choice.calls.insert(part.choice.calls.end(), calls.begin(), calls.end());
    return;
  }
  Choice piece = part.choice;  // index, has_log_probs, and what an echo put there
  piece.text += plain;
  piece.calls = std::move(calls);
  const bool has_tokens_to_list = is_last && !part.held_log_probs.empty();
  if (piece.text.empty() && piece.calls.empty() && piece.log_probs.empty() && !has_tokens_to_list) return;
  part.choice.text.clear();
  part.choice.log_probs.clear();
  piece.text_offset = part.text_characters;
  piece.log_probs.insert(piece.log_probs.end(), part.held_log_probs.begin(), part.held_log_probs.end());
  part.held_log_probs.clear();
  send_chunk(part, std::move(piece));
}

void Completion::send_chunk(Part& part, Choice piece) {
  if (!std::exchange(streaming_, true)) {
    HttpResponse response;
    response.content_type = "text/event-stream; charset=utf-8";
    response.headers = {{"Cache-Control", "no-store"}, {"X-Accel-Buffering", "no"}};
    reply_->begin_stream(std::move(response));
  }
  const int64_t first_call = part.num_calls - static_cast<int64_t>(piece.calls.size());
  part.text_characters += num_characters(piece.text);
  reply_->write(
      event_text(chunk(head_, piece, !std::exchange(part.sent_first, true), first_call, engine_.tokenizer())));
}

std::string Completion::event_text(const Json& json) const { return "data: " + dump(json) + "\n\n"; }

void Completion::end_part(Part& part, const EngineEvent& event) {
  add_text(part, event.text, true);
  too_late_ = too_late_ || event.finish == EngineFinish::kTooLate;
  part.choice.finish_reason = finish_reason(event.finish, part.num_calls > 0);
  part.done = true;
  usage_.completion_tokens += event.new_tokens;
  usage_.cached_tokens += event.cached_tokens;
  if (request_.stream && !too_late_) {
    Choice last;
    last.index = part.choice.index;
    last.finish_reason = part.choice.finish_reason;
    send_chunk(part, std::move(last));
  }
  if (++num_done_ == parts_.size()) finish();
}

void Completion::finish() {
  over_ = true;
  usage_.cached_tokens = std::min(usage_.cached_tokens, usage_.prompt_tokens);
  int status = 200;
  if (too_late_ && !streaming_) {
    status = 503;
    HttpResponse response =
        error_response(ApiError(503, "no slot came free in the time that a request may take", "", "timeout"));
    response.headers.emplace_back("Retry-After", "5");
    reply_->send(std::move(response));
  } else if (request_.stream) {
    if (request_.stream_usage) reply_->write(event_text(usage_chunk(head_, usage_)));
    reply_->write("data: [DONE]\n\n");
    reply_->end_stream();
  } else {
    std::vector<Choice> choices;
    for (Part& part : parts_) choices.push_back(std::move(part.choice));
    HttpResponse response;
    response.body = dump(whole_answer(head_, choices, usage_, engine_.tokenizer()));
    reply_->send(std::move(response));
  }
  metrics_->count_request(endpoint_of(head_), status);
  metrics_->request_seconds.observe(seconds_since(arrived_));
  reply_.reset();
}

void Completion::fail(const std::exception_ptr& error) {
  over_ = true;
  ApiError told(500, "the model failed; the server's log says more");
  try {
    if (error) std::rethrow_exception(error);
  } catch (const Error& failed) {
    log_warning("a request failed: {}", failed.what());
  } catch (const std::bad_alloc&) {
    log_warning("a request failed: out of memory");
  } catch (const std::exception& failed) {
    log_warning("a request failed: {}", failed.what());
  }
  for (const auto id : ids_) engine_.cancel(id);
  if (streaming_) {
    reply_->write(event_text(error_json(told)));
    reply_->end_stream();
  } else {
    reply_->send(error_response(told));
  }
  metrics_->count_request(endpoint_of(head_), told.status);
  reply_.reset();
}

void Completion::abandon() {
  const std::lock_guard lock(mutex_);
  if (std::exchange(over_, true)) return;
  for (const auto id : ids_) engine_.cancel(id);
  ++metrics_->answers_abandoned;
  reply_.reset();
}

}  // namespace potstill::server
