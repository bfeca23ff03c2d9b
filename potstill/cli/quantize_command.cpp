#include <fmt/format.h>

#include "potstill/base/log.h"
#include "potstill/cli/command.h"
#include "potstill/stages/quantize_stage.h"

namespace potstill {
namespace {

struct QuantizeOptions {
  QuantizeInputs inputs;
  std::filesystem::path out;
  QuantizeConfig config;
};

std::string describe(const Artifact& artifact) {
  const auto& results = artifact.results();
  const auto& errors = results.at("errors");
  const auto wide = results.at("eight_bit_linears").get<int64_t>();
  return fmt::format(
      "{}\n  {} linears in {:.3f} bits a weight with their scales{}; {} of weights (expected {})\n"
      "  mean relative output error {:.4f} (rounding alone {:.4f}), {} on the last resort",
      artifact.path.string(), errors.at("linears").get<int64_t>(), results.at("bits_per_weight").get<double>(),
      wide > 0 ? fmt::format(", {} of them in 8 bits", wide) : "",
      format_bytes(results.at("weights_bytes").get<uint64_t>()),
      format_bytes(results.at("expected").at("folder_bytes").get<uint64_t>()),
      errors.at("mean_relative_error").get<double>(), errors.at("mean_rounding_error").get<double>(),
      errors.at("rounded_as_last_resort").get<int64_t>());
}

}  // namespace

void add_quantize_command(CLI::App& app, GlobalOptions& global) {
  auto [command, options] = new_command<QuantizeOptions>(app, "quantize", "Put a model's linears into 4 bits");
  command->add_option("--model", options->inputs.model, "Hugging Face folder or GGUF file")->required();
  command->add_option("--out", options->out, "compressed-tensors folder to write")->required();
  add_config_flags(*command, options->config);
  command->callback([options = options, &global] {
    check_config(options->config, "quantize");
    options->inputs.dtype = global.dtype;
    options->inputs.device = global.device;
    if (!options->config.calibration.empty()) {
      options->inputs.calibration = parse_calibration(options->config.calibration);
    }
    const auto artifact =
        run_stage(options->out, quantize_key(options->inputs, options->config, global.seed), global.if_exists(),
                  [&](ArtifactWriter& out) { run_quantize_stage(options->inputs, options->config, out); });
    print_result(global, artifact.manifest, describe(artifact));
  });
}

}  // namespace potstill
