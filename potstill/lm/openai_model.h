// OpenAiModel: any OpenAI-compatible endpoint (vLLM, llama.cpp, Ollama, a hosted one, potstill-edge serve) as a
// LanguageModel.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "potstill/lm/http_client.h"
#include "potstill/lm/language_model.h"
#include "potstill/lm/prompt_log_probs.h"

namespace potstill {

struct OpenAiOptions {
  HttpClientOptions http;
  std::string model;
  int64_t budget_tokens = 0;                  // prompt and answers together; 0 = any number
  double budget_cost = 0;                     // in the prices' currency; 0 = any
  double prompt_price = 0, answer_price = 0;  // for a million tokens
};

struct TeacherUsage {
  int64_t requests = 0, prompt_tokens = 0, answer_tokens = 0;
  double cost = 0;
};

class OpenAiModel : public LanguageModel {
 public:
  explicit OpenAiModel(OpenAiOptions options);

  std::string name() const override { return options_.model; }
  // Messages go to /chat/completions, raw prompts to /completions. A result's tokens are as many as the endpoint
  // counts, each -1: it does not tell their ids. Throws Error(kInterrupted) when the budget is spent: answers under way
  // are waited for and given to on_done first.
  std::vector<GenerateResult> generate(std::span<const GenerateRequest> requests,
                                       const std::function<void(size_t, const GenerateResult&)>& on_done = {}) override;
  // By /completions with echo and logprobs, which not every endpoint has.
  std::vector<ScoreResult> score(std::span<const ScoreRequest> requests) override;
  // By the twenty likeliest first tokens of an answer; a candidate that is not among them counts as the last of them.
  std::vector<std::vector<double>> choose(std::span<const ChoiceRequest> requests) override;

  // What the model says of each prompt's own tokens, with its top_k likeliest at each place. Prompts are token ids, so
  // that both sides see the same. The first prompt is asked alone to see which way of telling it the endpoint has.
  // Throws Error(kNetwork) where it has none.
  void prompt_log_probs(std::span<const std::vector<TokenId>> prompts, int64_t top_k,
                        const std::function<void(size_t, const PromptLogProbs&)>& on_done);

  const TeacherUsage& usage() const { return usage_; }
  int64_t num_retries() const { return http_.num_retries(); }

 private:
  nlohmann::json body_of(const GenerateRequest& request) const;
  // Asks for all bodies; read(i, answer) takes the parsed answers as they come.
  void ask(const std::vector<std::string>& paths, const std::function<nlohmann::json(size_t)>& body,
           const std::function<void(size_t, const nlohmann::json&)>& read);
  // The same for log-probabilities; false when the endpoint does not tell them in this way.
  bool ask_log_probs(LogProbDialect dialect, std::span<const std::vector<TokenId>> prompts, size_t begin, size_t end,
                     int64_t top_k, const std::function<void(size_t, const PromptLogProbs&)>& on_done);
  bool drop_refused_field(const std::string& message);
  void count(const nlohmann::json& answer);
  bool budget_is_spent() const;
  [[noreturn]] void refuse(int status, const std::string& message) const;

  OpenAiOptions options_;
  HttpClient http_;
  std::set<std::string> dropped_;  // fields that the endpoint does not know
  TeacherUsage usage_;
};

}  // namespace potstill
