// Completion: one request from the engine's events to the answer on the wire, whole or as a stream.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "potstill/lm/text_engine.h"
#include "potstill/server/http_server.h"
#include "potstill/server/metrics.h"
#include "potstill/server/openai_answer.h"
#include "potstill/server/openai_request.h"

namespace potstill::server {

class Completion : public std::enable_shared_from_this<Completion> {
 public:
  Completion(TextEngine& engine, std::shared_ptr<Metrics> metrics, CompletionRequest request, AnswerHead head,
             std::shared_ptr<Reply> reply, std::chrono::steady_clock::time_point arrived);

  // Tokenizes, checks and submits. Throws ApiError (400, 503) before anything was answered.
  // max_tokens: for requests that name none; the deadline ends the answer.
  void start(int64_t max_tokens, std::chrono::steady_clock::time_point deadline);

 private:
  struct Part {  // of the answer: one choice
    Choice choice;
    ToolCallParser calls;
    int64_t num_calls = 0;
    bool sent_first = false;
    bool done = false;
    int64_t text_characters = 0;
    std::chrono::steady_clock::time_point last_token{};
    std::vector<TokenLogProbs> held_log_probs;  // of tokens whose text is still held back
  };

  std::vector<EngineRequest> engine_requests(int64_t max_tokens, std::chrono::steady_clock::time_point deadline);
  void on_event(size_t index, EngineEvent event);
  void add_token(Part& part, EngineEvent& event);
  void add_text(Part& part, const std::string& text, bool is_last);
  void end_part(Part& part, const EngineEvent& event);
  void send_chunk(Part& part, Choice piece);
  void finish();
  void fail(const std::exception_ptr& error);
  void abandon();
  std::string event_text(const nlohmann::ordered_json& json) const;

  TextEngine& engine_;
  std::shared_ptr<Metrics> metrics_;
  CompletionRequest request_;
  AnswerHead head_;
  std::shared_ptr<Reply> reply_;
  std::chrono::steady_clock::time_point arrived_;

  std::mutex mutex_;  // events come from the engine's thread, the client's going from the server's
  std::vector<TextEngine::RequestId> ids_;
  std::vector<Part> parts_;
  Usage usage_;
  size_t num_done_ = 0;
  bool streaming_ = false;  // the head of the stream went out
  bool over_ = false;       // answered, failed or abandoned
  bool too_late_ = false;
};

}  // namespace potstill::server
