// ScriptedModel: a LanguageModel for tests. It answers from functions of the request alone, in any order that a test
// wants, counts what it was asked, and can fail after a number of answers.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "potstill/lm/language_model.h"

namespace potstill {

class ScriptedModel : public LanguageModel {
 public:
  std::string model_name = "scripted";
  std::function<GenerateResult(const GenerateRequest&)> on_generate = [](const GenerateRequest&) {
    return GenerateResult{};
  };
  std::function<ScoreResult(const ScoreRequest&)> on_score = [](const ScoreRequest&) {
    return ScoreResult{.log_likelihood = -1.0, .is_greedy = false, .num_tokens = 1};
  };
  std::function<std::vector<double>(const ChoiceRequest&)> on_choose = [](const ChoiceRequest& request) {
    return std::vector<double>(request.candidates.size(), 1.0 / static_cast<double>(request.candidates.size()));
  };
  // Answers of a batch come in this order: given its size, a permutation of 0 … size - 1.
  std::function<std::vector<size_t>(size_t)> order = [](size_t size) {
    std::vector<size_t> indices(size);
    std::iota(indices.begin(), indices.end(), size_t{0});
    return indices;
  };
  int64_t fail_after = -1;  // throws std::runtime_error in place of the next answer; -1 = never

  int64_t num_answers = 0;
  std::map<std::string, int64_t> times_asked;  // by the request's whole text

  std::string name() const override { return model_name; }

  std::vector<GenerateResult> generate(
      std::span<const GenerateRequest> requests,
      const std::function<void(size_t, const GenerateResult&)>& on_done = {}) override {
    std::vector<GenerateResult> results(requests.size());
    for (const size_t i : order(requests.size())) {
      count("generate", text_of(requests[i].messages) + requests[i].prompt + requests[i].answer_prefix +
                            std::to_string(requests[i].sampling.seed));
      results[i] = on_generate(requests[i]);
      if (on_done) on_done(i, results[i]);
    }
    return results;
  }

  std::vector<ScoreResult> score(std::span<const ScoreRequest> requests) override {
    std::vector<ScoreResult> results(requests.size());
    for (const size_t i : order(requests.size())) {
      count("score", requests[i].context + requests[i].continuation);
      results[i] = on_score(requests[i]);
    }
    return results;
  }

  std::vector<std::vector<double>> choose(std::span<const ChoiceRequest> requests) override {
    std::vector<std::vector<double>> results(requests.size());
    for (const size_t i : order(requests.size())) {
      count("choose", text_of(requests[i].messages) + requests[i].prompt + requests[i].answer_prefix);
      results[i] = on_choose(requests[i]);
    }
    return results;
  }

 private:
  static std::string text_of(const std::vector<ChatMessage>& messages) {
    std::string text;
    for (const auto& message : messages) text += message.role + ": " + message.content + "\n";
    return text;
  }

  void count(std::string_view kind, const std::string& text) {
    if (fail_after >= 0 && num_answers == fail_after) throw std::runtime_error("scripted failure");
    ++num_answers;
    ++times_asked[std::string(kind) + "\n" + text];
  }
};

}  // namespace potstill
