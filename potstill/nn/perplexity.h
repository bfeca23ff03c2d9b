// Perplexity of a model on a text: exp of the mean negative log-likelihood of its tokens.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "potstill/lm/model_package.h"

namespace potstill {

struct PerplexityResult {
  double perplexity = 0, mean_nll = 0;  // nats, summed in double
  int64_t scored_tokens = 0;
};

struct PerplexityOptions {
  int64_t context = 512;     // tokens of a window; windows do not overlap
  int64_t score_from = 1;    // first token of a window that is scored; those before it are context alone
  int64_t limit_tokens = 0;  // 0 = all
  std::string dtype = "auto", device = "auto";
  std::function<void(int64_t layers_done, int64_t layers)> progress;
};

// Runs layer-major, so a model larger than memory can be measured. A last window of one token is left out. Throws
// Error(kInput) when nothing is left to score, Error(kNumeric) when a likelihood is no number.
PerplexityResult measure_perplexity(const ModelPackage& model, std::span<const int32_t> tokens,
                                    const PerplexityOptions& options);
PerplexityResult measure_perplexity(const ModelPackage& model, std::string_view text, const PerplexityOptions& options);

// Of a model in memory, such as a base with its adapter; `where` names it in errors.
struct Transformer;
PerplexityResult measure_perplexity(const Transformer& model, std::span<const int32_t> tokens,
                                    const PerplexityOptions& options, const std::string& where);

}  // namespace potstill
