#include <fmt/format.h>

#include "potstill/cli/command.h"
#include "potstill/stages/perplexity.h"

namespace potstill {

void add_perplexity_command(CLI::App& app, GlobalOptions& global) {
  auto [command, inputs] = new_command<PerplexityInputs>(
      app, "perplexity", "Measure a model's perplexity on a text, in windows that do not overlap");
  command->add_option("--model", inputs->model, "Hugging Face folder or GGUF file")->required();
  command->add_option("--text", inputs->text, "UTF-8 text file")->required();
  command->add_option("--context", inputs->context, "tokens of a window")->capture_default_str();
  command
      ->add_option("--score-from", inputs->score_from,
                   "first token of a window that is scored (llama.cpp's perplexity: half the context + 1)")
      ->capture_default_str();
  command->add_option("--limit-tokens", inputs->limit_tokens, "use the text's first N tokens (0 = all)")
      ->check(CLI::NonNegativeNumber);
  command->callback([inputs = inputs, &global] {
    inputs->dtype = global.dtype;
    inputs->device = global.device;
    const auto result = perplexity_of_file(*inputs);
    print_result(global, result,
                 fmt::format("perplexity {:.3f}   (mean negative log-likelihood {:.5f} over {} tokens)",
                             result.at("perplexity").get<double>(), result.at("mean_nll").get<double>(),
                             result.at("scored_tokens").get<int64_t>()));
  });
}

}  // namespace potstill
