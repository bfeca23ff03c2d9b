#include "potstill/cli/command.h"
#include "potstill/lm/inspect_model.h"

namespace potstill {
namespace {

struct InspectCommandOptions {
  std::filesystem::path model;
  InspectOptions options;
};

}  // namespace

void add_inspect_command(CLI::App& app, GlobalOptions& global) {
  auto [command, options] = new_command<InspectCommandOptions>(app, "inspect", "Show what a model is made of");
  command->add_option("model", options->model, "Hugging Face folder or GGUF file")->required();
  command->add_flag("--tensors", options->options.tensors, "list every weight with its type and shape");
  command->callback([options = options, &global] {
    const auto inspection = inspect_model(open_model(options->model), options->options);
    print_result(global, inspection, inspection_text(inspection));
  });
}

}  // namespace potstill
