// TextEngine: many requests at a time over one model, each answered token by token as it goes: what a server needs. It
// is implemented by edge/scheduler.h. LanguageModel (language_model.h) is the seam for whole batches.
#pragma once

#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "potstill/lm/grammar.h"
#include "potstill/lm/language_model.h"
#include "potstill/text/tokenizer.h"

namespace potstill {

// log p of one token under the model itself (before temperature and filters), and of the likeliest in its place.
struct TokenLogProbs {
  TokenId id = 0;
  float log_prob = 0;                               // nats; NaN for a prompt's first token, which nothing predicts
  std::vector<std::pair<TokenId, float>> top = {};  // best first
};

struct EngineRequest {
  std::vector<TokenId> prompt;
  int64_t max_new_tokens = 256;  // 0 = only the prompt is read
  std::vector<std::string> stop;
  SamplingParams sampling;
  std::shared_ptr<const Grammar> grammar;  // the answer's bytes follow it; null = free text
  int num_top = -1;                        // log-probabilities of the answer's tokens with so many others; -1 = none
  bool prompt_log_probs = false;           // those of the prompt's tokens too, with num_top others
  // Cached positions that were computed token by token may stand in for the prompt's: cheaper for a conversation, and
  // different in the last bits from reading the prompt afresh.
  bool reuse_answers = true;
  std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();
};

enum class EngineFinish {
  kStop,       // end of turn, stop string, or the grammar's end
  kLength,     // max_new_tokens, the context's end, or the deadline
  kCancelled,  // by cancel() or because the engine closes
  kTooLate,    // the deadline passed before its turn came
  kFailed,     // `error` says why
};

// What happens to one request, in order: at most one event with the prompt, one for each token, text that was held
// back, one last.
struct EngineEvent {
  std::vector<TokenLogProbs> prompt;   // prompt_log_probs: all of the prompt's tokens
  std::optional<TokenLogProbs> token;  // a token of the answer; `top` and log_prob only where asked for
  bool is_end_of_turn = false;         // `token` ends the turn and is none of the answer's own
  std::string text;                    // text that became certain: bytes are never torn inside a character
  bool is_last = false;
  // of the last event:
  EngineFinish finish = EngineFinish::kStop;
  int64_t prompt_tokens = 0, cached_tokens = 0 /* of them, not computed again */, new_tokens = 0;
  std::exception_ptr error;
};

struct EngineStats {
  int64_t queued = 0, running = 0, slots = 0;
  uint64_t prompt_tokens = 0, cached_tokens = 0, new_tokens = 0;  // since the start
  uint64_t steps = 0, step_tokens = 0;                            // decoding steps, and tokens that they made
  uint64_t set_aside = 0;                                         // times that an answer made room for another
};

class TextEngine {
 public:
  using RequestId = uint64_t;
  // index: which request of the group. On the engine's own thread: must return at once.
  using OnEvent = std::function<void(size_t index, EngineEvent event)>;

  virtual ~TextEngine() = default;

  // Queues requests that belong together (the choices of one HTTP request): all or none. Those who wait get their turn
  // by fair share: a group of a hundred does not stand before the single one that came after it. Returns nothing when
  // the queue has no room. Throws Error(kInput | kUsage) for a request that can never run. Thread-safe.
  virtual std::optional<std::vector<RequestId>> submit(std::vector<EngineRequest> group, OnEvent on_event) = 0;
  // Ends a request early; its last event says kCancelled. Unknown ids are ignored. Thread-safe.
  virtual void cancel(RequestId id) = 0;

  virtual std::string name() const = 0;
  virtual const Tokenizer& tokenizer() const = 0;
  virtual const ChatTemplate& chat_template() const = 0;
  virtual int64_t context_length() const = 0;
  virtual EngineStats stats() const = 0;
};

}  // namespace potstill
