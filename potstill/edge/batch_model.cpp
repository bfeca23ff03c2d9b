#include "potstill/edge/batch_model.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <utility>

#include "potstill/base/check.h"
#include "potstill/base/interrupt.h"
#include "potstill/lm/request_tokens.h"
#include "potstill/lm/schema_constraints.h"

namespace potstill::edge {
namespace {

// Events come on the scheduler's thread; finished answers are handed to the caller's.
class Answers {
 public:
  explicit Answers(size_t count) : results(count) {}

  void take(size_t index, EngineEvent event) {
    const std::lock_guard lock(mutex_);
    GenerateResult& result = results[index];
    result.text += event.text;
    if (event.token && !event.is_end_of_turn) result.tokens.push_back(event.token->id);
    if (!event.is_last) return;
    result.prompt_tokens = event.prompt_tokens;
    result.finish = event.finish == EngineFinish::kLength ? FinishReason::kLength : FinishReason::kStop;
    if (event.error && !error_) error_ = event.error;
    ended_.push_back(index);
    changed_.notify_one();
  }

  // Indices that ended since the last call; waits a while for the first. Throws what an answer failed with.
  std::vector<size_t> wait() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::milliseconds(200), [this] { return !ended_.empty(); });
    if (error_) std::rethrow_exception(error_);
    return std::exchange(ended_, {});
  }

  std::vector<GenerateResult> results;  // one is the caller's once wait() has named it

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<size_t> ended_;
  std::exception_ptr error_;
};

}  // namespace

BatchModel::BatchModel(const std::filesystem::path& path, const EdgeOptions& options, int slots)
    : model_(path, options), slots_(slots) {}

std::vector<GenerateResult> BatchModel::generate(std::span<const GenerateRequest> requests,
                                                 const std::function<void(size_t, const GenerateResult&)>& on_done) {
  std::vector<EngineRequest> group;
  const ModelPackage& package = model_.package();
  SchemaConstraints schemas(*package.tokenizer, package.config.vocab_size, stop_token_ids(package));
  for (const GenerateRequest& request : requests) {
    EngineRequest engine;
    engine.prompt = prompt_tokens(*package.tokenizer, package.chat_template, request.messages, request.prompt,
                                  request.answer_prefix);
    engine.max_new_tokens = request.max_new_tokens;
    engine.stop = request.stop;
    engine.sampling = request.sampling;
    engine.reuse_answers = false;  // an answer must not depend on what was answered before it
    if (!request.json_schema.empty()) engine.grammar = schemas.grammar(request.json_schema);
    group.push_back(std::move(engine));
  }
  Answers answers(requests.size());
  if (requests.empty()) return {};
  const auto slots = std::min<size_t>(static_cast<size_t>(slots_), requests.size());
  constexpr int64_t kNeverAside = int64_t{1} << 40;  // nobody waits for a single answer, only for all of them
  Scheduler scheduler(
      model_,
      {.slots = static_cast<int>(slots), .max_queued = static_cast<int64_t>(requests.size()), .quantum = kNeverAside});
  const auto ids = scheduler.submit(
      std::move(group), [&answers](size_t index, EngineEvent event) { answers.take(index, std::move(event)); });
  POTSTILL_CHECK(ids.has_value());
  for (size_t done = 0; done < requests.size();) {
    throw_if_interrupted();
    for (const size_t index : answers.wait()) {
      ++done;
      if (on_done) on_done(index, answers.results[index]);
    }
  }
  return std::move(answers.results);
}

}  // namespace potstill::edge
