// LanguageModel: the seam between "a model" and everything that uses one: evaluation, Self-Instruct, the server. It is
// implemented by nn/torch_model.h, edge/edge_model.h and, for tests, lm/scripted_model.h.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "potstill/text/chat_template.h"

namespace potstill {

struct SamplingParams {
  double temperature = 0.0;  // 0 = greedy
  double top_p = 1.0;
  int64_t top_k = 0;  // 0 = all
  double min_p = 0.0;
  double repetition_penalty = 1.0;
  uint64_t seed = 0;  // the whole stream of this request's draws
  // OpenAI's: taken off the logits of what the answer already says, once and for each time it was said.
  double presence_penalty = 0.0, frequency_penalty = 0.0;
  std::vector<std::pair<int32_t, float>> logit_bias = {};  // added to the logits of these ids
};

enum class FinishReason { kStop, kLength };

struct GenerateRequest {
  std::vector<ChatMessage> messages;  // rendered by the model's own template, unless prompt is given
  std::string prompt;                 // raw text; used when messages is empty
  std::string answer_prefix;          // put at the start of the assistant's turn; not part of the result's text
  int64_t max_new_tokens = 256;
  std::vector<std::string> stop;  // the text ends before the first of them
  // A JSON Schema that the answer follows: kept token by token by a local model (lm/json_grammar.h says which schemas),
  // passed on to an endpoint, which may not know it. "" = free text.
  std::string json_schema = {};
  SamplingParams sampling;
};

struct GenerateResult {
  std::string text;  // without answer_prefix, stop string and special tokens
  std::vector<int32_t> tokens;
  FinishReason finish = FinishReason::kStop;
  int64_t prompt_tokens = 0;
};

// log p(continuation | context), both plain text with lm-evaluation-harness's rules for the seam and for BOS.
struct ScoreRequest {
  std::string context, continuation;
};

struct ScoreResult {
  double log_likelihood = 0.0;  // nats, summed over the continuation's tokens
  bool is_greedy = false;       // every token was the most likely one
  int64_t num_tokens = 0;
};

// Probability of each candidate as the next text after a prompt: for rubric scores read off the distribution.
struct ChoiceRequest {
  std::vector<ChatMessage> messages;
  std::string prompt;  // used when messages is empty
  std::string answer_prefix;
  std::vector<std::string> candidates;  // each is compared by its first token after answer_prefix
};

class LanguageModel {
 public:
  virtual ~LanguageModel() = default;

  virtual std::string name() const = 0;  // identifies weights: goes into lineage and cache keys
  // Results in the order of the requests. on_done(i, result) is called as each finishes (from the calling thread), so
  // that a caller can put it on the disk before the batch is through. The text of a request does not depend on its
  // neighbours.
  virtual std::vector<GenerateResult> generate(
      std::span<const GenerateRequest> requests,
      const std::function<void(size_t, const GenerateResult&)>& on_done = {}) = 0;
  virtual std::vector<ScoreResult> score(std::span<const ScoreRequest> requests) = 0;
  virtual std::vector<std::vector<double>> choose(
      std::span<const ChoiceRequest> requests) = 0;  // normalised over candidates
};

}  // namespace potstill
