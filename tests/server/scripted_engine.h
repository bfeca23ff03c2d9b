// ScriptedEngine: a TextEngine for tests: answers with a text, character by character, on a thread of its own.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "potstill/lm/text_engine.h"

namespace potstill {

// Bytes are tokens.
inline Tokenizer byte_tokenizer() {
  Vocabulary vocabulary;
  for (int i = 0; i < 95; ++i) vocabulary.tokens.emplace_back(1, static_cast<char>(' ' + i));
  vocabulary.tokens[0] = "\xc4\xa0";           // GPT-2's spelling of the blank
  vocabulary.tokens.emplace_back("\xc4\x8a");  // and of the line break
  vocabulary.types.assign(vocabulary.tokens.size(), TokenType::kNormal);
  return Tokenizer(std::move(vocabulary));
}

class ScriptedEngine : public TextEngine {
 public:
  std::function<std::string(const EngineRequest&)> answer = [](const EngineRequest&) { return "ok"; };
  int64_t room = 1000;                 // requests that may wait
  std::chrono::microseconds pause{0};  // before each token
  std::atomic<int> num_cancelled{0}, num_ended{0};
  EngineRequest last;  // the last one submitted; read it when its answer is there

  ScriptedEngine() : thread_([this] { loop(); }) {}
  ~ScriptedEngine() override {
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }

  std::optional<std::vector<RequestId>> submit(std::vector<EngineRequest> group, OnEvent on_event) override {
    const std::lock_guard lock(mutex_);
    if (static_cast<int64_t>(jobs_.size() + group.size()) > room) return std::nullopt;
    std::vector<RequestId> ids;
    for (size_t i = 0; i < group.size(); ++i) {
      ids.push_back(next_++);
      last = group[i];
      jobs_.push_back({ids.back(), i, answer(group[i]), group[i], on_event});
    }
    wake_.notify_all();
    return ids;
  }
  void cancel(RequestId id) override {
    const std::lock_guard lock(mutex_);
    cancelled_.insert(id);
    ++num_cancelled;
  }
  std::string name() const override { return "scripted"; }
  const Tokenizer& tokenizer() const override { return tokenizer_; }
  const ChatTemplate& chat_template() const override { return template_; }
  int64_t context_length() const override { return 2'000'000; }
  EngineStats stats() const override { return {}; }

 private:
  struct Job {
    RequestId id;
    size_t index;
    std::string text;
    EngineRequest request;
    OnEvent on_event;
  };
  void loop() {
    for (;;) {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return closing_ || !jobs_.empty(); });
      if (closing_) return;
      Job job = std::move(jobs_.front());
      jobs_.erase(jobs_.begin());
      lock.unlock();
      run(job);
    }
  }
  void run(Job& job) {
    EngineEvent last_event;
    last_event.is_last = true;
    last_event.prompt_tokens = static_cast<int64_t>(job.request.prompt.size());
    if (job.request.prompt_log_probs) {
      EngineEvent event;
      for (const TokenId id : job.request.prompt) event.prompt.push_back({.id = id, .log_prob = -1.0f});
      job.on_event(job.index, std::move(event));
    }
    for (const char c : job.text) {
      if (last_event.new_tokens == job.request.max_new_tokens) {
        last_event.finish = EngineFinish::kLength;
        break;
      }
      if (pause.count() > 0) std::this_thread::sleep_for(pause);
      {
        const std::lock_guard lock(mutex_);
        if (closing_ || cancelled_.count(job.id) > 0) {
          last_event.finish = EngineFinish::kCancelled;
          break;
        }
      }
      EngineEvent event;
      event.token = TokenLogProbs{.id = tokenizer_.encode(std::string_view(&c, 1)).at(0), .log_prob = -0.5f};
      event.text = std::string(1, c);
      ++last_event.new_tokens;
      job.on_event(job.index, std::move(event));
    }
    job.on_event(job.index, std::move(last_event));
    job.on_event = {};
    ++num_ended;
  }

  Tokenizer tokenizer_ = byte_tokenizer();
  ChatTemplate template_{ChatTemplate::Kind::kChatMl};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Job> jobs_;
  std::set<RequestId> cancelled_;
  RequestId next_ = 1;
  bool closing_ = false;
  std::thread thread_;
};

}  // namespace potstill
