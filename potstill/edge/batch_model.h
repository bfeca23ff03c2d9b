// BatchModel: the edge runtime as a LanguageModel that answers many requests at a time, with continuous refill.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "potstill/edge/edge_model.h"
#include "potstill/edge/scheduler.h"

namespace potstill::edge {

// generate() runs a Scheduler over the model's weights while it lasts: a finished answer's place goes to the next
// request. score() and choose() are EdgeModel's own, one request after the other.
class BatchModel : public LanguageModel {
 public:
  BatchModel(const std::filesystem::path& path, const EdgeOptions& options, int slots);

  std::string name() const override { return model_.name() + " (edge)"; }
  std::vector<GenerateResult> generate(std::span<const GenerateRequest> requests,
                                       const std::function<void(size_t, const GenerateResult&)>& on_done = {}) override;
  std::vector<ScoreResult> score(std::span<const ScoreRequest> requests) override { return model_.score(requests); }
  std::vector<std::vector<double>> choose(std::span<const ChoiceRequest> requests) override {
    return model_.choose(requests);
  }

 private:
  EdgeModel model_;
  int slots_;
};

}  // namespace potstill::edge
