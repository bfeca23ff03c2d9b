#include "potstill/stages/perplexity.h"

#include "potstill/base/atomic_file.h"
#include "potstill/base/log.h"
#include "potstill/nn/perplexity.h"

namespace potstill {

nlohmann::ordered_json perplexity_of_file(const PerplexityInputs& inputs) {
  const std::string text = read_file(inputs.text);
  const ModelPackage model = open_model(inputs.model);
  Progress progress("perplexity", model.config.num_hidden_layers, "layers");
  PerplexityOptions options;
  options.context = inputs.context;
  options.score_from = inputs.score_from;
  options.limit_tokens = inputs.limit_tokens;
  options.dtype = inputs.dtype;
  options.device = inputs.device;
  options.progress = [&](int64_t, int64_t) { progress.advance(); };
  const PerplexityResult result = measure_perplexity(model, text, options);
  progress.finish();
  return {{"perplexity", result.perplexity}, {"mean_nll", result.mean_nll}, {"scored_tokens", result.scored_tokens}};
}

}  // namespace potstill
