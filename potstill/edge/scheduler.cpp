#include "potstill/edge/scheduler.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "potstill/base/error.h"

namespace potstill::edge {
namespace {

// Tokens of a prompt in one turn: all that a step takes when nobody else waits, else about the work of a few answers'
// tokens, so that a long prompt does not stop the text of others.
constexpr size_t kPieceAlone = Forward::kStepTokens, kPieceBesideAnswers = 64;
constexpr size_t kWorthCopying = 8;  // positions; fewer are computed again

}  // namespace

Scheduler::Scheduler(EdgeModel& model, const SchedulerOptions& options)
    : model_(model), options_(options), stop_ids_(stop_token_ids(model.package())) {
  if (options.slots < 1 || options.slots > 256) {
    throw Error(ErrorKind::kUsage, "--parallel", fmt::format("is {} but must be in [1, 256]", options.slots));
  }
  for (int i = 0; i < options.slots; ++i) add_slot();
  stats_.slots = options.slots;
  thread_ = std::thread([this] { loop(); });
}

void Scheduler::add_slot() {
  slots_.push_back(std::make_unique<Slot>(model_.config(), model_.cache().capacity(), model_.cache().layout().type));
}

Scheduler::~Scheduler() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

std::unique_ptr<Sequence> Scheduler::make_sequence(size_t index, EngineRequest request, const OnEvent& on_event) {
  const int64_t capacity = context_length();
  if (request.prompt.empty()) {
    throw Error(ErrorKind::kInput, "prompt", "has no tokens", "give at least one character");
  }
  if (static_cast<int64_t>(request.prompt.size()) > capacity) {
    throw Error(ErrorKind::kInput, "prompt",
                fmt::format("has {} tokens but the context is {}", request.prompt.size(), capacity), "shorten it");
  }
  for (const TokenId id : request.prompt) {
    if (id < 0 || id >= model_.config().vocab_size) {
      throw Error(ErrorKind::kInput, "prompt",
                  fmt::format("token id {} is outside the vocabulary of {}", id, model_.config().vocab_size));
    }
  }
  if (request.grammar) {
    std::call_once(vocabulary_once_, [this] {
      vocabulary_ = std::make_shared<VocabularyBytes>(tokenizer(), model_.config().vocab_size);
    });
  }
  return std::make_unique<Sequence>(0, index, std::move(request), on_event, tokenizer(), stop_ids_, vocabulary_);
}

std::optional<std::vector<TextEngine::RequestId>> Scheduler::submit(std::vector<EngineRequest> group,
                                                                    OnEvent on_event) {
  std::vector<std::unique_ptr<Sequence>> sequences;
  for (size_t i = 0; i < group.size(); ++i) sequences.push_back(make_sequence(i, std::move(group[i]), on_event));
  std::vector<RequestId> ids;
  {
    const std::lock_guard lock(mutex_);
    const int64_t waiting = static_cast<int64_t>(queue_.size() + sequences.size()) - num_aside_;
    if (closing_ || waiting > options_.max_queued) return std::nullopt;
    const uint64_t first_id = next_id_;
    uint64_t turn = turn_;
    for (auto& sequence : sequences) {
      ids.push_back(next_id_++);
      sequence->id = ids.back();
      sequence->group = first_id;
      enqueue(std::move(sequence), ++turn);
    }
    stats_.queued = static_cast<int64_t>(queue_.size());
  }
  wake_.notify_one();
  return ids;
}

void Scheduler::enqueue(std::unique_ptr<Sequence> sequence, uint64_t turn) {
  const auto place = std::upper_bound(queue_.begin(), queue_.end(), turn,
                                      [](uint64_t value, const Waiting& waiting) { return value < waiting.turn; });
  queue_.insert(place, {std::move(sequence), turn});
}

void Scheduler::cancel(RequestId id) {
  {
    const std::lock_guard lock(mutex_);
    cancelled_.push_back(id);
  }
  wake_.notify_one();
}

EngineStats Scheduler::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

void Scheduler::loop() {
  while (wait_for_work()) {
    end_the_unwanted();
    admit();
    run_turn();
    remove_ended();
  }
  for (auto& sequence : running_) sequence->end(EngineFinish::kCancelled);
  for (auto& waiting : queue_) waiting.sequence->end(EngineFinish::kCancelled);  // nobody else touches it any more
}

bool Scheduler::wait_for_work() {
  std::unique_lock lock(mutex_);
  wake_.wait(lock, [this] { return closing_ || !queue_.empty() || !running_.empty(); });
  return !closing_;
}

// Cancelled requests, and those whose time is over.
void Scheduler::end_the_unwanted() {
  std::vector<std::unique_ptr<Sequence>> from_queue;
  std::vector<RequestId> cancelled;
  const auto now = std::chrono::steady_clock::now();
  {
    const std::lock_guard lock(mutex_);
    cancelled.swap(cancelled_);
    for (auto waiting = queue_.begin(); waiting != queue_.end();) {
      const Sequence& sequence = *waiting->sequence;
      const bool unwanted = std::find(cancelled.begin(), cancelled.end(), sequence.id) != cancelled.end();
      if (!unwanted && now < sequence.request.deadline) {
        ++waiting;
        continue;
      }
      num_aside_ -= sequence.slot != nullptr;
      from_queue.push_back(std::move(waiting->sequence));
      waiting = queue_.erase(waiting);
    }
    stats_.queued = static_cast<int64_t>(queue_.size());
  }
  for (auto& sequence : from_queue) {
    const bool begun = sequence->slot != nullptr;
    if (begun) sequence->slot->in_use = false;
    sequence->end(now < sequence->request.deadline ? EngineFinish::kCancelled
                  : begun                          ? EngineFinish::kLength
                                                   : EngineFinish::kTooLate);
  }
  for (auto& sequence : running_) {
    if (std::find(cancelled.begin(), cancelled.end(), sequence->id) != cancelled.end()) {
      sequence->end(EngineFinish::kCancelled);
    } else if (now >= sequence->request.deadline) {
      sequence->end(EngineFinish::kLength);
    }
  }
  remove_ended();
}

void Scheduler::remove_ended() {
  for (auto& sequence : running_) {
    if (sequence->ended && sequence->slot != nullptr) sequence->slot->in_use = false;
  }
  running_.erase(std::remove_if(running_.begin(), running_.end(), [](const auto& sequence) { return sequence->ended; }),
                 running_.end());
  const std::lock_guard lock(mutex_);
  stats_.running = static_cast<int64_t>(running_.size());
}

void Scheduler::admit() {
  const std::lock_guard lock(mutex_);
  size_t at = 0;
  for (size_t left = queue_.size(); left > 0; --left) {  // those that step aside now come again in a later turn
    Waiting next = std::move(queue_[at]);
    queue_.erase(queue_.begin() + static_cast<ptrdiff_t>(at));
    if (running_.size() >= static_cast<size_t>(options_.slots) && !make_room(next.sequence->group)) {
      queue_.insert(queue_.begin() + static_cast<ptrdiff_t>(at++), std::move(next));
      continue;
    }
    turn_ = std::max(turn_, next.turn);
    num_aside_ -= next.sequence->slot != nullptr;
    next.sequence->turn_tokens = 0;
    running_.push_back(std::move(next.sequence));
  }
  if (queue_.empty()) drop_spare_slots();
  stats_.queued = static_cast<int64_t>(queue_.size());
  stats_.running = static_cast<int64_t>(running_.size());
}

int64_t Scheduler::num_kept_positions() const {
  int64_t positions = 0;
  for (const Waiting& waiting : queue_) {
    if (waiting.sequence->slot != nullptr) positions += waiting.sequence->slot->cache.length();
  }
  return positions;
}

// Sets one answer aside that had its quantum, for one of `group`: of the same request, or of one that has more answers
// under way. False when there is none, or no memory for what takes its place.
bool Scheduler::make_room(uint64_t group) {
  const auto answers_of = [this](uint64_t id) {
    return std::count_if(running_.begin(), running_.end(), [&](const auto& other) { return other->group == id; });
  };
  const auto may_step_aside = [&](const Sequence& sequence) {
    return sequence.started && !sequence.reads_prompt() && sequence.turn_tokens >= options_.quantum &&
           (sequence.group == group || answers_of(sequence.group) > answers_of(group));
  };
  const auto had_more = [&](const Sequence& a, const Sequence& b) {
    const auto answers_a = answers_of(a.group), answers_b = answers_of(b.group);
    return answers_a != answers_b ? answers_a > answers_b : a.turn_tokens > b.turn_tokens;
  };
  auto chosen = running_.end();
  for (auto sequence = running_.begin(); sequence != running_.end(); ++sequence) {
    if (!may_step_aside(**sequence)) continue;
    if (chosen == running_.end() || had_more(**sequence, **chosen)) chosen = sequence;
  }
  if (chosen == running_.end()) return false;
  const int64_t kept = num_kept_positions() + (*chosen)->slot->cache.length();
  if (kept > options_.slots * context_length()) return false;
  if (slots_.size() < static_cast<size_t>(options_.slots + num_aside_ + 1)) {  // one for each that runs or stands aside
    try {
      add_slot();
    } catch (const Error&) {  // no addresses left: those who wait do so until an answer ends
      return false;
    }
  }
  enqueue(std::move(*chosen), turn_ + 1);
  running_.erase(chosen);
  ++num_aside_;
  ++stats_.set_aside;
  return true;
}

// Gives back what was taken for answers that stood aside, the longest unused first.
void Scheduler::drop_spare_slots() {
  while (slots_.size() > static_cast<size_t>(options_.slots)) {
    auto oldest = slots_.end();
    for (auto slot = slots_.begin(); slot != slots_.end(); ++slot) {
      if (!(*slot)->in_use && (oldest == slots_.end() || (*slot)->last_used < (*oldest)->last_used)) oldest = slot;
    }
    if (oldest == slots_.end()) return;
    slots_.erase(oldest);
  }
}

// Gives the sequence a slot with as much of its prompt as some slot has. False when it is better off waiting: another
// prompt with the same beginning is being read.
bool Scheduler::start_prompt(Sequence& sequence) {
  Slot *donor = nullptr, *oldest = nullptr;
  size_t shared = 0;
  for (auto& slot : slots_) {
    if (!slot->in_use && (oldest == nullptr || slot->last_used < oldest->last_used)) oldest = slot.get();
    const size_t here = slot->shared_with(sequence.request);
    if (here > shared || (here == shared && here > 0 && donor->in_use && !slot->in_use))
      donor = slot.get(), shared = here;
  }
  for (const auto& other : running_) {
    if (!other->started || !other->reads_prompt() ||
        other->request.prompt_log_probs < sequence.request.prompt_log_probs) {
      continue;
    }
    const size_t common = common_prefix(other->request.prompt, sequence.request.prompt);
    if (common > other->slot->tokens.size() && common > shared + kPieceBesideAnswers) return false;
  }
  // A free slot that this prompt goes on from is taken as it is; one of which it shares only a beginning stays for
  // those who share more.
  if (donor != nullptr && !donor->in_use && 2 * shared >= donor->tokens.size()) {
    sequence.slot = donor;
  } else {
    sequence.slot = oldest;
    if (donor == nullptr || (shared < kWorthCopying && donor != oldest)) donor = oldest, shared = 0;
  }
  sequence.slot->begin_with(*donor, shared, sequence.request.prompt_log_probs);
  sequence.slot->in_use = true;
  sequence.slot->last_used = ++clock_;
  sequence.started = true;
  sequence.cached_tokens = static_cast<int64_t>(shared);
  return true;
}

// The next sequence, in turn, that has a piece of prompt to read.
Sequence* Scheduler::next_reader() {
  for (size_t i = 0; i < running_.size(); ++i) {
    const size_t at = (next_reader_ + i) % running_.size();
    Sequence& sequence = *running_[at];
    if (sequence.started ? !sequence.reads_prompt() : !start_prompt(sequence)) continue;
    next_reader_ = at + 1;
    return &sequence;
  }
  return nullptr;
}

void Scheduler::run_turn() {
  std::vector<Sequence*> members;
  std::vector<SequenceStep> steps;
  for (auto& sequence : running_) {
    if (!sequence->started || sequence->reads_prompt()) continue;
    members.push_back(sequence.get());
    steps.push_back({sequence->tokens().last(1), &sequence->slot->cache, /*decoding=*/true, true});
  }
  const size_t num_answers = members.size();
  Sequence* reader = next_reader();
  size_t num_read = 0;
  try {
    if (reader != nullptr) {
      const size_t begin = reader->slot->tokens.size(), size = reader->request.prompt.size();
      num_read = std::min(num_answers == 0 ? kPieceAlone : kPieceBesideAnswers, size - begin);
      if (reader->request.prompt_log_probs) {
        read_log_probs(*reader, num_read);
      } else {
        members.push_back(reader);
        const auto piece = std::span(reader->request.prompt).subspan(begin, num_read);
        steps.push_back({piece, &reader->slot->cache, /*decoding=*/false, begin + num_read == size});
      }
    }
    if (!members.empty()) make_tokens(members, steps);
  } catch (...) {  // out of memory: those of this turn fail, the next ones find room
    if (reader != nullptr) members.push_back(reader);
    for (Sequence* sequence : members) {
      sequence->slot->begin_with(*sequence->slot, 0, false);
      sequence->end(EngineFinish::kFailed, std::current_exception());
    }
  }
  const std::lock_guard lock(mutex_);
  stats_.steps += num_answers > 0;
  stats_.step_tokens += num_answers;
  stats_.new_tokens += num_answers;
  if (reader == nullptr) return;
  stats_.prompt_tokens += num_read;
  if (reader->slot->tokens.size() < reader->request.prompt.size()) return;
  stats_.prompt_tokens += static_cast<uint64_t>(reader->cached_tokens);
  stats_.cached_tokens += static_cast<uint64_t>(reader->cached_tokens);
  stats_.new_tokens += reader->request.max_new_tokens > 0;
}

// One step of the model, and what each of its sequences makes of it.
void Scheduler::make_tokens(std::span<Sequence* const> members, std::span<const SequenceStep> steps) {
  const auto logits = model_.forward().step(steps);
  const auto V = static_cast<size_t>(model_.config().vocab_size);
  size_t row = 0;
  for (size_t i = 0; i < members.size(); ++i) {
    Slot& slot = *members[i]->slot;
    if (!steps[i].decoding && slot.as_prompt == slot.tokens.size()) slot.as_prompt += steps[i].tokens.size();
    slot.tokens.insert(slot.tokens.end(), steps[i].tokens.begin(), steps[i].tokens.end());
    if (steps[i].wants_logits) take_logits(*members[i], logits.subspan(row++ * V, V));
  }
}

void Scheduler::take_logits(Sequence& sequence, std::span<const float> logits) {
  if (sequence.request.max_new_tokens <= 0) return sequence.end(EngineFinish::kLength);
  try {
    sequence.next_token(logits, sequence.slot->cache.length() == sequence.slot->cache.capacity());
  } catch (const Error&) {  // nothing to draw: this answer ends, its neighbours go on
    sequence.end(EngineFinish::kFailed, std::current_exception());
  }
}

// Reads `count` tokens more of the prompt and what the model thought of each.
void Scheduler::read_log_probs(Sequence& sequence, size_t count) {
  const EngineRequest& request = sequence.request;
  Slot& slot = *sequence.slot;
  const size_t begin = slot.tokens.size();
  if (begin == 0) {
    slot.log_probs.assign(1, {.id = request.prompt[0], .log_prob = std::nanf("")});
    slot.num_top = request.num_top;
  }
  const auto piece = std::span(request.prompt).subspan(begin, count);
  // Its own copy: the answer's first token is drawn when all is in the slot's books.
  std::vector<float> last_logits;
  model_.forward().prompt(piece, slot.cache, [&](size_t i, std::span<const float> logits) {
    const size_t next = begin + i + 1;
    if (next < request.prompt.size()) {
      slot.log_probs.push_back(token_log_probs(logits, request.prompt[next], slot.num_top));
    } else {
      last_logits.assign(logits.begin(), logits.end());
    }
  });
  slot.tokens.insert(slot.tokens.end(), piece.begin(), piece.end());
  slot.as_prompt = slot.tokens.size();
  if (last_logits.empty()) return;
  std::vector<TokenLogProbs> log_probs(slot.log_probs.begin(),
                                       slot.log_probs.begin() + static_cast<ptrdiff_t>(request.prompt.size()));
  for (auto& token : log_probs)
    token.top.resize(std::min(token.top.size(), static_cast<size_t>(std::max(0, request.num_top))));
  sequence.send_prompt(std::move(log_probs));
  take_logits(sequence, last_logits);
}

}  // namespace potstill::edge
