#include <fmt/format.h>

#include "potstill/cli/command.h"
#include "potstill/stages/train_ranks.h"

namespace potstill {
namespace {

struct TrainOptions {
  TrainInputs inputs;
  std::filesystem::path out;
  DistillConfig config;
  DistillDataConfig data;
};

std::string describe(const Artifact& artifact) {
  const auto& results = artifact.results();
  const auto &before = results.at("held_out_before"), &after = results.at("held_out");
  const auto quantity = results.at("quantity").get<std::string>();
  std::string text = fmt::format("{}\n  {} steps over {} pairs, {} trained parameters", artifact.path.string(),
                                 results.at("steps").get<int64_t>(), results.at("train_pairs").get<int64_t>(),
                                 results.at("trainable_parameters").get<int64_t>());
  if (results.at("held_out_pairs").get<int64_t>() == 0) return text;
  return text + fmt::format(
                    "\n  on {} held-out pairs: {} to the teacher {:.4f} -> {:.4f}, same first choice {:.1f} % -> "
                    "{:.1f} %",
                    results.at("held_out_pairs").get<int64_t>(), results.at("quantity_title").get<std::string>(),
                    before.at(quantity).get<double>(), after.at(quantity).get<double>(),
                    100 * before.at("top1").get<double>(), 100 * after.at("top1").get<double>());
}

}  // namespace

void add_train_command(CLI::App& app, GlobalOptions& global) {
  auto [command, options] =
      new_command<TrainOptions>(app, "train", "Train a LoRA student on a teacher's distributions");
  command->add_option("--student", options->inputs.student, "Hugging Face folder or GGUF file")->required();
  command->add_option("--teacher", options->inputs.teacher, "knowledge cache of `potstill teach`, or a model")
      ->required();
  command->add_option("--data", options->inputs.data, "pairs: JSONL with Alpaca fields or messages")->required();
  command->add_option("--out", options->out, "PEFT adapter folder to write")->required();
  add_config_flags(*command, options->config);
  add_config_flags(*command, options->data);
  command->callback([options = options, &global] {
    check_config(options->config, "train");
    check_config(options->data, "train");
    options->inputs.dtype = global.dtype;
    options->inputs.device = global.device;
    const TrainRanks ranks;
    if (ranks.joined() && !ranks.is_first()) {
      return ranks.join(options->inputs, options->config, options->data, global.seed);
    }
    const auto artifact = run_stage(
        options->out, train_key(options->inputs, options->config, options->data, global.seed), global.if_exists(),
        [&](ArtifactWriter& out) { ranks.run(options->inputs, options->config, options->data, out); });
    ranks.finish();
    print_result(global, artifact.manifest, describe(artifact));
  });
}

}  // namespace potstill
