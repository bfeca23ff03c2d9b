#include "potstill/base/error.h"
#include "potstill/cli/command.h"
#include "potstill/lm/inspect_model.h"
#include "potstill/stages/inspect_outliers.h"

namespace potstill {
namespace {

struct InspectCommandOptions {
  std::filesystem::path model, page;
  InspectOptions options;
  bool activations = false, weights = false;
  InspectOutliersInputs outliers;
};

void check(const InspectCommandOptions& options) {
  const bool outliers = options.activations || options.weights;
  if (options.activations && options.outliers.text.empty()) {
    throw Error(ErrorKind::kUsage, "inspect", "--activations needs text to run the model on",
                "--text FILE, or --weights alone");
  }
  if (!outliers && (!options.page.empty() || !options.outliers.compare.empty() || !options.outliers.text.empty())) {
    throw Error(ErrorKind::kUsage, "inspect", "--text, --compare and --page belong to --activations or --weights");
  }
}

}  // namespace

void add_inspect_command(CLI::App& app, GlobalOptions& global) {
  auto [command, options] = new_command<InspectCommandOptions>(
      app, "inspect", "Show what a model is made of, and where its activations and weights stick out");
  command->add_option("model", options->model, "Hugging Face folder or GGUF file")->required();
  command->add_flag("--tensors", options->options.tensors, "list every weight with its type and shape");
  command->add_flag(
      "--activations", options->activations,
      "outliers of the linears' inputs and blocks' outputs on --text: kurtosis, max to median, channels above "
      "6 sigma; and of the weights");
  command->add_flag("--weights", options->weights, "crest factors, spectral norms and stable ranks of the linears");
  command->add_option("--text", options->outliers.text, "plain text, or .jsonl as calibration takes it");
  command->add_option("--tokens", options->outliers.tokens, "tokens of the text")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--sequence-length", options->outliers.sequence_length, "tokens of a sequence")
      ->check(CLI::Range(8, 1000000))
      ->capture_default_str();
  command->add_option("--compare", options->outliers.compare, "a second model, side by side");
  command->add_option("--page", options->page, "HTML file to write, with plots");
  command->callback([options = options, &global] {
    check(*options);
    const ModelPackage model = open_model(options->model);
    if (!options->activations && !options->weights) {
      const auto inspection = inspect_model(model, options->options);
      return print_result(global, inspection, inspection_text(inspection));
    }
    options->outliers.seed = global.seed;
    options->outliers.dtype = global.dtype;
    options->outliers.device = global.device;
    if (!options->activations) options->outliers.text.clear();
    const auto outliers = inspect_outliers(model, options->outliers);
    if (!options->page.empty()) write_outliers_page(options->page, outliers);
    print_result(global, outliers, outliers_text(outliers));
  });
}

}  // namespace potstill
