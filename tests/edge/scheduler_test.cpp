#include "potstill/edge/scheduler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <thread>
#include <utility>

#include "potstill/base/error.h"
#include "potstill/lm/json_grammar.h"

namespace potstill::edge {
namespace {

std::filesystem::path tiny(const std::string& family) {
  return std::filesystem::path(POTSTILL_SOURCE_DIR) / "tests/golden/edge" / ("tiny_" + family + ".gguf");
}

struct Outcome {
  std::vector<TokenId> tokens;
  std::vector<TokenLogProbs> log_probs, prompt;
  std::string text;
  EngineEvent last;
};

// Collects the events of a group until each request had its last one.
class Collector {
 public:
  explicit Collector(size_t size) : outcomes(size) {}
  TextEngine::OnEvent sink() {
    return [this](size_t index, EngineEvent event) {
      const std::lock_guard lock(mutex_);
      Outcome& outcome = outcomes.at(index);
      if (!event.prompt.empty()) outcome.prompt = event.prompt;
      if (event.token && !event.is_end_of_turn) {
        outcome.tokens.push_back(event.token->id);
        outcome.log_probs.push_back(*event.token);
      }
      outcome.text += event.text;
      ++num_events;
      if (event.is_last) outcome.last = event, ++done_;
      changed_.notify_all();
    };
  }
  // As sink(), but the engine stops at the first event until release().
  TextEngine::OnEvent sink_that_holds() {
    return [this, collect = sink()](size_t index, EngineEvent event) {
      collect(index, std::move(event));
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return released_; });
    };
  }
  void release() {
    const std::lock_guard lock(mutex_);
    released_ = true;
    changed_.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return done_ == outcomes.size(); });
  }
  void wait_for_events(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return num_events >= count; });
  }
  std::vector<Outcome> outcomes;
  size_t num_events = 0;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t done_ = 0;
  bool released_ = false;
};

EngineRequest request_of(const EdgeModel& model, const std::string& text, int64_t max_new_tokens, uint64_t seed = 0) {
  EngineRequest request;
  request.prompt = model.package().tokenizer->encode(text);
  request.max_new_tokens = max_new_tokens;
  request.sampling = {.temperature = 1.0, .seed = seed};
  request.reuse_answers = false;
  return request;
}

// The same, but no token ends it early.
EngineRequest endless_request_of(const EdgeModel& model, const std::string& text, int64_t max_new_tokens,
                                 uint64_t seed = 0) {
  EngineRequest request = request_of(model, text, max_new_tokens, seed);
  for (const TokenId id : stop_token_ids(model.package())) request.sampling.logit_bias.emplace_back(id, -100.0f);
  return request;
}

std::vector<Outcome> run(Scheduler& scheduler, std::vector<EngineRequest> group) {
  Collector collector(group.size());
  EXPECT_TRUE(scheduler.submit(std::move(group), collector.sink()).has_value());
  collector.wait();
  return collector.outcomes;
}

class SchedulerTest : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Families, SchedulerTest, testing::Values("llama", "qwen2", "qwen3"),
                         [](const auto& family) { return std::string(family.param); });

// Long and short prompts, more of them than slots, beginnings shared and not: each answer is the one it is alone.
TEST_P(SchedulerTest, AnAnswerDoesNotDependOnItsNeighbours) {
  EdgeModel model(tiny(GetParam()), {.threads = 2, .context = 512});
  std::vector<EngineRequest> group;
  const std::string beginning = "the quick brown fox jumps over the lazy dog and runs away; ";
  for (int i = 0; i < 12; ++i) {
    std::string text = i % 3 == 0 ? beginning : std::string(1, static_cast<char>('a' + i));
    for (int n = 0; n < i * 18; ++n) text += static_cast<char>('a' + n % 26);
    group.push_back(request_of(model, text, 5 + 3 * i, static_cast<uint64_t>(i)));
  }
  std::vector<std::vector<int32_t>> alone;
  for (size_t i = 0; i < group.size(); ++i) {
    EdgeModel other(tiny(GetParam()), {.threads = 1, .context = 512});
    Scheduler one(other, {.slots = 1});
    alone.push_back(run(one, {group[i]}).at(0).tokens);
  }
  Scheduler scheduler(model, {.slots = 4});
  for (int round = 0; round < 2; ++round) {  // the second finds prompts in the slots
    const auto together = run(scheduler, group);
    for (size_t i = 0; i < group.size(); ++i) {
      EXPECT_EQ(together[i].tokens, alone[i]) << "request " << i << " round " << round;
      EXPECT_EQ(together[i].last.new_tokens, static_cast<int64_t>(alone[i].size()));
      EXPECT_EQ(together[i].last.prompt_tokens, static_cast<int64_t>(group[i].prompt.size()));
    }
  }
  const auto stats = scheduler.stats();
  EXPECT_GT(stats.cached_tokens, 0u);
  EXPECT_GT(stats.step_tokens, stats.steps) << "steps were shared";
}

TEST(Scheduler, EqualsTheModelsOwnAnswer) {
  EdgeModel model(tiny("llama"), {.threads = 2}), other(tiny("llama"), {.threads = 2});
  Scheduler scheduler(model);
  GenerateRequest plain;
  plain.prompt = "hello there";
  plain.max_new_tokens = 30;
  plain.sampling = {.temperature = 0.8, .top_p = 0.9, .seed = 4};
  const auto expected = other.generate(std::span(&plain, 1)).at(0);
  auto request = request_of(model, plain.prompt, 30);
  request.sampling = plain.sampling;
  const auto got = run(scheduler, {request}).at(0);
  EXPECT_EQ(got.tokens, expected.tokens);
  EXPECT_EQ(got.text, expected.text);
}

TEST(Scheduler, PromptLogProbsAreTheModelsAndAreSharedByChoices) {
  EdgeModel model(tiny("qwen3"), {.threads = 2}), other(tiny("qwen3"), {.threads = 2});
  Scheduler scheduler(model, {.slots = 2});
  const std::string context = "which of these is the right one? it is ";
  for (const std::string choice : {"alpha", "beta", "alphabet", "a"}) {
    auto request = request_of(model, context + choice, 1);
    request.num_top = 2;
    request.prompt_log_probs = true;
    const auto outcome = run(scheduler, {request}).at(0);
    ASSERT_EQ(outcome.prompt.size(), request.prompt.size());
    EXPECT_TRUE(std::isnan(outcome.prompt[0].log_prob));
    other.cache().set_length(0);
    other.forward().prompt(request.prompt, other.cache(), [&](size_t i, std::span<const float> logits) {
      if (i + 1 == request.prompt.size()) return;
      const auto expected = token_log_probs(logits, request.prompt[i + 1], 2);
      EXPECT_EQ(outcome.prompt[i + 1].id, expected.id);
      EXPECT_EQ(outcome.prompt[i + 1].log_prob, expected.log_prob) << choice << " token " << i + 1;
      EXPECT_EQ(outcome.prompt[i + 1].top, expected.top);
    });
    EXPECT_EQ(outcome.log_probs.size(), outcome.tokens.size());
    if (choice == "alpha") continue;
    EXPECT_GE(outcome.last.cached_tokens, static_cast<int64_t>(model.package().tokenizer->encode(context).size()) - 1);
  }
}

TEST(Scheduler, SharesAPromptWithOneThatIsBeingAnswered) {
  EdgeModel model(tiny("llama"), {.threads = 2, .context = 512});
  Scheduler scheduler(model, {.slots = 2});
  std::string text;
  for (int i = 0; i < 400; ++i) text += static_cast<char>('a' + i % 26);
  Collector first(1);
  const auto ids = scheduler.submit({request_of(model, text, 100)}, first.sink_that_holds());
  first.wait_for_events(1);
  Collector second(1);
  ASSERT_TRUE(scheduler.submit({request_of(model, text + "zz", 3)}, second.sink()));
  first.release();
  second.wait();
  EXPECT_GE(second.outcomes[0].last.cached_tokens + 3,
            static_cast<int64_t>(model.package().tokenizer->encode(text).size()));
  first.wait();
}

TEST(Scheduler, EndsACancelledAnswerAtItsNextToken) {
  EdgeModel model(tiny("llama"), {.threads = 1});
  Scheduler scheduler(model, {.slots = 1});
  Collector first(1), queued(1);
  const auto ids = scheduler.submit({request_of(model, "abc", 400)}, first.sink_that_holds());
  first.wait_for_events(1);
  const auto waiting = scheduler.submit({request_of(model, "abc", 400)}, queued.sink());
  scheduler.cancel(ids->at(0));
  scheduler.cancel(waiting->at(0));
  scheduler.cancel(12345);
  first.release();
  first.wait();
  queued.wait();
  EXPECT_EQ(first.outcomes[0].last.new_tokens, 1);
  EXPECT_EQ(queued.outcomes[0].last.finish, EngineFinish::kCancelled);
  EXPECT_EQ(first.outcomes[0].last.finish, EngineFinish::kCancelled);
  EXPECT_EQ(run(scheduler, {request_of(model, "abc", 2)}).at(0).tokens.size(), 2u) << "the slot is free again";
}

TEST(Scheduler, AGroupDoesNotStandBeforeTheOneThatComesAfterIt) {
  EdgeModel model(tiny("llama"), {.threads = 1});
  Scheduler scheduler(model, {.slots = 1});
  std::vector<EngineRequest> many;
  for (int i = 0; i < 20; ++i) many.push_back(request_of(model, "group", 30, static_cast<uint64_t>(i)));
  Collector group(many.size()), single(1);
  ASSERT_TRUE(scheduler.submit(many, group.sink_that_holds()));
  group.wait_for_events(1);
  size_t done = 0;  // of the group, when the single one ends
  const auto count = [&, collect = single.sink()](size_t index, EngineEvent event) {
    if (event.is_last) {
      for (const auto& outcome : group.outcomes) done += outcome.last.is_last;  // the same thread wrote them
    }
    collect(index, std::move(event));
  };
  ASSERT_TRUE(scheduler.submit({request_of(model, "single", 5)}, count));
  group.release();
  single.wait();
  group.wait();
  EXPECT_LE(done, 3u) << "its turn is among the first of them";
}

// One place, one long answer in it: those that come later have their turn after a quantum, and nobody's text changes.
TEST_P(SchedulerTest, ALongAnswerStepsAsideForThoseThatWaitAndGoesOnUnchanged) {
  for (const auto type : {kernels::KvType::kHalf, kernels::KvType::kByte}) {
    const EdgeOptions options{.threads = 2, .context = 512, .kv_cache = type};
    EdgeModel model(tiny(GetParam()), options), other(tiny(GetParam()), options);
    const auto long_request = endless_request_of(model, "a long story", 150),
               short_request = endless_request_of(model, "short", 12, 3);
    Scheduler one(other, {.slots = 1});
    const auto long_alone = run(one, {long_request}).at(0).tokens, short_alone = run(one, {short_request}).at(0).tokens;

    Scheduler scheduler(model, {.slots = 1, .quantum = 10});
    Collector first(1), others(3);
    ASSERT_TRUE(scheduler.submit({long_request}, first.sink_that_holds()));
    first.wait_for_events(1);
    std::vector<size_t> written;  // of the long answer, when each short one ends
    const auto count = [&, collect = others.sink()](size_t index, EngineEvent event) {
      if (event.is_last) written.push_back(first.outcomes[0].tokens.size());  // the same thread wrote them
      collect(index, std::move(event));
    };
    ASSERT_TRUE(scheduler.submit({short_request, short_request, short_request}, count));
    first.release();
    others.wait();
    first.wait();
    EXPECT_LE(written.at(0), 30u) << "the first of them waits for a quantum, and has one itself before it ends";
    EXPECT_LT(written.at(2), long_alone.size());
    EXPECT_EQ(first.outcomes[0].tokens, long_alone);
    EXPECT_EQ(first.outcomes[0].last.new_tokens, static_cast<int64_t>(long_alone.size()));
    for (const auto& outcome : others.outcomes) EXPECT_EQ(outcome.tokens, short_alone);
    EXPECT_GE(scheduler.stats().set_aside, 3u);
    EXPECT_EQ(run(scheduler, {short_request}).at(0).tokens, short_alone) << "with the places that it began with";
  }
}

// A request with as many choices as there are places gives one up to the single answer that comes after it, although
// all of them began at once.
TEST(Scheduler, TheRequestWithMostAnswersStepsAsideFirst) {
  EdgeModel model(tiny("llama"), {.threads = 2, .context = 512});
  Scheduler scheduler(model, {.slots = 4, .quantum = 10});
  std::vector<EngineRequest> many;
  for (int i = 0; i < 3; ++i) many.push_back(endless_request_of(model, "group", 120, static_cast<uint64_t>(i)));
  Collector group(3), single(1), late(1);
  ASSERT_TRUE(scheduler.submit(many, group.sink_that_holds()));
  group.wait_for_events(1);
  ASSERT_TRUE(scheduler.submit({endless_request_of(model, "single", 120, 7)}, single.sink()));
  size_t single_tokens = 0, group_tokens = 0;
  const auto count = [&, collect = late.sink()](size_t index, EngineEvent event) {
    if (event.is_last) {
      single_tokens = single.outcomes[0].tokens.size();
      for (const auto& outcome : group.outcomes) group_tokens += outcome.tokens.size();
    }
    collect(index, std::move(event));
  };
  ASSERT_TRUE(scheduler.submit({endless_request_of(model, "late", 60, 9)}, count));
  group.release();
  late.wait();
  EXPECT_LT(group_tokens, 3 * single_tokens) << "two places for three, a whole one for the single answer";
  single.wait();
  group.wait();
}

TEST(Scheduler, AnAnswerThatStandsAsideCanBeCancelledAndGivesItsPlaceBack) {
  EdgeModel model(tiny("llama"), {.threads = 1, .context = 512});
  Scheduler scheduler(model, {.slots = 1, .quantum = 5});
  Collector first(1), second(1);
  const auto ids = scheduler.submit({endless_request_of(model, "abc", 300)}, first.sink_that_holds());
  first.wait_for_events(1);
  bool cancelled = false;
  const auto cancel_first = [&, collect = second.sink()](size_t index, EngineEvent event) {
    if (!std::exchange(cancelled, true)) scheduler.cancel(ids->at(0));  // it stands aside now
    collect(index, std::move(event));
  };
  ASSERT_TRUE(scheduler.submit({endless_request_of(model, "xyz", 20)}, cancel_first));
  first.release();
  first.wait();
  second.wait();
  EXPECT_EQ(first.outcomes[0].last.finish, EngineFinish::kCancelled);
  EXPECT_LE(first.outcomes[0].tokens.size(), 10u);
  EXPECT_EQ(second.outcomes[0].tokens.size(), 20u);
  EXPECT_EQ(run(scheduler, {request_of(model, "abc", 2)}).at(0).tokens.size(), 2u);
}

TEST(Scheduler, BoundsItsQueueAndEndsWhatIsLate) {
  EdgeModel model(tiny("llama"), {.threads = 1, .context = 512});
  Scheduler scheduler(model, {.slots = 1, .max_queued = 2});
  Collector first(1);
  ASSERT_TRUE(scheduler.submit({request_of(model, "long", 400)}, first.sink_that_holds()));
  first.wait_for_events(1);
  auto late = request_of(model, "late", 5);
  late.deadline = std::chrono::steady_clock::now();
  Collector second(1), third(2);
  ASSERT_TRUE(scheduler.submit({late}, second.sink()));
  EXPECT_FALSE(scheduler.submit({late, late}, third.sink())) << "two more do not fit, and not one of them";
  first.release();
  second.wait();
  EXPECT_EQ(second.outcomes[0].last.finish, EngineFinish::kTooLate);
  EXPECT_EQ(third.num_events, 0u);
  first.wait();
}

TEST(Scheduler, RefusesWhatCanNeverRun) {
  EdgeModel model(tiny("llama"), {.threads = 1, .context = 16});
  Scheduler scheduler(model, {.slots = 1});
  const auto sink = [](size_t, EngineEvent) { FAIL() << "nothing was queued"; };
  EXPECT_THROW(scheduler.submit({request_of(model, "", 5)}, sink), Error);
  EXPECT_THROW(scheduler.submit({request_of(model, std::string(40, 'x'), 5)}, sink), Error);
  auto request = request_of(model, "a", 5);
  request.prompt.push_back(1 << 20);
  EXPECT_THROW(scheduler.submit({request}, sink), Error);
  request = request_of(model, "a", 5);
  request.sampling.temperature = -1;
  EXPECT_THROW(scheduler.submit({request}, sink), Error);
  EXPECT_THROW(Scheduler(model, {.slots = 0}), Error);
}

TEST(Scheduler, StopsAtTheContextsEndAtStopStringsAndAtTheGrammars) {
  EdgeModel model(tiny("llama"), {.threads = 1, .context = 32});
  Scheduler scheduler(model, {.slots = 2});
  const auto full = run(scheduler, {request_of(model, "0123456789", 1000)}).at(0);
  EXPECT_LE(full.tokens.size(), 23u);
  EXPECT_EQ(full.last.finish, EngineFinish::kLength);
  auto request = request_of(model, "0123456789", 20);
  const auto free = run(scheduler, {request}).at(0);
  request.stop = {free.text.substr(3, 2)};
  const auto stopped = run(scheduler, {request}).at(0);
  EXPECT_EQ(stopped.text, free.text.substr(0, free.text.find(request.stop[0])));
  EXPECT_EQ(stopped.last.finish, EngineFinish::kStop);
  request = request_of(model, "0123456789", 20);
  const auto grammar = std::make_shared<Grammar>();
  grammar->add_alternative(grammar->add_rule(), Grammar::text("yes"));
  request.grammar = grammar;
  const auto held = run(scheduler, {request}).at(0);
  EXPECT_EQ(held.text, "yes");
  EXPECT_EQ(held.last.finish, EngineFinish::kStop);
}

TEST(Scheduler, EndsWhatIsUnderWayWhenItCloses) {
  EdgeModel model(tiny("llama"), {.threads = 1, .context = 512});
  Collector collector(3);
  {
    Scheduler scheduler(model, {.slots = 1});
    std::vector<EngineRequest> group(3, request_of(model, "long", 400));
    ASSERT_TRUE(scheduler.submit(group, [&, collect = collector.sink()](size_t index, EngineEvent event) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));  // four hundred of them outlast the next line
      collect(index, std::move(event));
    }));
    collector.wait_for_events(1);
  }
  for (const auto& outcome : collector.outcomes) EXPECT_EQ(outcome.last.finish, EngineFinish::kCancelled);
}

}  // namespace
}  // namespace potstill::edge
