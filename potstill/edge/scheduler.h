// Scheduler: many requests at a time over one EdgeModel's weights: continuous batching.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "potstill/edge/edge_model.h"
#include "potstill/edge/sequence.h"
#include "potstill/lm/text_engine.h"

namespace potstill::edge {

struct SchedulerOptions {
  int slots = 8;             // answers written at a time; each has a KV cache of its own
  int64_t max_queued = 256;  // requests that wait for one
  int64_t quantum = 64;      // tokens that an answer makes before it steps aside for one that waits
};

// One thread runs the model. Each of its turns reads a piece of one waiting prompt and then makes one token for every
// answer under way, so a long prompt holds an answer up by a piece and not by its length, and an answer that begins
// while others are written joins them at the next token.
//
// When others wait, an answer that had its quantum of tokens steps aside, those of the request with most answers under
// way first, and comes again in its turn: nobody waits for the whole of a long answer. It keeps its cache meanwhile, so
// its text stays what it is alone. At most as many positions are kept so as the slots themselves hold.
//
// A slot keeps its keys and values when its answer is done. A new prompt takes over the longest beginning that any slot
// has computed, also from one that is in use.
class Scheduler : public TextEngine {
 public:
  // Borrows the model: its own generate() and score() must not be called while the scheduler lives.
  explicit Scheduler(EdgeModel& model, const SchedulerOptions& options = {});
  ~Scheduler() override;  // ends what is under way: kCancelled
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  std::optional<std::vector<RequestId>> submit(std::vector<EngineRequest> group, OnEvent on_event) override;
  void cancel(RequestId id) override;
  std::string name() const override { return model_.name(); }
  const Tokenizer& tokenizer() const override { return *model_.package().tokenizer; }
  const ChatTemplate& chat_template() const override { return model_.package().chat_template; }
  int64_t context_length() const override { return model_.cache().capacity(); }
  EngineStats stats() const override;

 private:
  struct Waiting {
    std::unique_ptr<Sequence> sequence;  // with a slot when it stepped aside, without one before its first turn
    uint64_t turn;                       // smaller comes first; equals by arrival
  };

  void enqueue(std::unique_ptr<Sequence> sequence, uint64_t turn);
  std::unique_ptr<Sequence> make_sequence(size_t index, EngineRequest request, const OnEvent& on_event);
  void loop();
  bool wait_for_work();
  void admit();
  bool make_room(uint64_t group);
  int64_t num_kept_positions() const;
  void add_slot();
  void drop_spare_slots();
  void end_the_unwanted();
  void run_turn();
  Sequence* next_reader();
  bool start_prompt(Sequence& sequence);
  void make_tokens(std::span<Sequence* const> members, std::span<const SequenceStep> steps);
  void take_logits(Sequence& sequence, std::span<const float> logits);
  void read_log_probs(Sequence& sequence, size_t count);
  void remove_ended();

  EdgeModel& model_;
  SchedulerOptions options_;
  std::vector<TokenId> stop_ids_;
  std::once_flag vocabulary_once_;
  std::shared_ptr<const VocabularyBytes> vocabulary_;  // made for the first request with a grammar
  std::vector<std::unique_ptr<Slot>> slots_;           // more than options_.slots while some stand aside

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Waiting> queue_;  // by turn
  int64_t num_aside_ = 0;      // of them have a slot
  std::vector<RequestId> cancelled_;
  RequestId next_id_ = 1;
  uint64_t turn_ = 0;  // of the last one admitted
  EngineStats stats_;
  bool closing_ = false;

  // The engine thread's own:
  std::vector<std::unique_ptr<Sequence>> running_;
  size_t next_reader_ = 0;  // where the search for a prompt to read begins
  uint64_t clock_ = 0;      // orders the uses of slots
  std::thread thread_;
};

}  // namespace potstill::edge
