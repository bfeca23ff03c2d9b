#include <fmt/format.h>

#include "potstill/cli/command.h"
#include "potstill/stages/search_stage.h"

namespace potstill {
namespace {

struct SearchOptions {
  SearchInputs inputs;
  SearchConfig search;
  DistillConfig train;
  DistillDataConfig data;
  QuantizeConfig quantize;  // as `potstill quantize` has it
  std::filesystem::path out;
  bool join = false;
};

struct AddUnlessThere {
  CLI::App& command;
  template <class T>
  void operator()(const char* name, T& value, const char* help, const FieldLimits& limits) {
    std::string flag = "--" + std::string(name);
    for (auto& c : flag) c = c == '_' ? '-' : c;
    if (command.get_option_no_throw(flag) == nullptr) command_internal::AddFlags{command}(name, value, help, limits);
  }
};

std::string describe(const Artifact& artifact) {
  const auto& best = artifact.results().at("best");
  const auto& held_out = best.at("held_out");
  const auto quantity = artifact.results().at("quantity").get<std::string>();
  std::string text =
      fmt::format("best of {} trials: number {}, {} {:.5f} (held-out {} {:.5f}, top-1 agreement {:.2f} %)",
                  artifact.results().at("trials").get<int64_t>(), best.at("trial").get<int64_t>(),
                  best.at("objective").get<std::string>(), best.at("value").get<double>(), quantity,
                  held_out.at(quantity).get<double>(), 100.0 * held_out.at("top1").get<double>());
  for (const auto& [name, value] : best.at("train").items()) text += fmt::format("\n  {} {}", name, value.dump());
  if (best.contains("replicates")) {
    const auto& replicates = best.at("replicates");
    text += fmt::format("\n{} replicates: mean {:.5f}, 95 % interval {:.5f} to {:.5f}", replicates.at("values").size(),
                        replicates.at("mean").get<double>(), replicates.at("interval95").at(0).get<double>(),
                        replicates.at("interval95").at(1).get<double>());
  }
  return text + fmt::format("\n{}\n`optuna-dashboard sqlite:///{}` shows the trials",
                            (artifact.path / "best.yaml").string(), (artifact.path / "study.db").string());
}

}  // namespace

// A searched setting's flag gives its range (one number fixes it); the settings that are never searched follow as
// `potstill train` has them.
void add_search_command(CLI::App& app, GlobalOptions& global) {
  auto [command, options] = new_command<SearchOptions>(
      app, "search", "Search the training settings that bring the student closest to its teacher");
  command->add_option("--student", options->inputs.student, "Hugging Face folder or GGUF")->required();
  command->add_option("--teacher", options->inputs.knowledge, "knowledge cache of `potstill teach`, or a model")
      ->required();
  command->add_option("--data", options->inputs.pairs, "pairs: JSONL with Alpaca fields or messages")->required();
  command->add_option("--out", options->out, "folder for study.db, best.yaml and trials.jsonl")->required();
  command->add_flag("--join", options->join,
                    "help a search that is under way into the same --out, with the same flags: do trials until none is "
                    "left to begin");
  add_config_flags(*command, options->search);
  add_config_flags(*command, options->data);
  AddUnlessThere unsearched{*command};
  DistillConfig::fields(options->train, unsearched);
  command->callback([options = options, &global] {
    options->inputs.dtype = global.dtype;
    options->inputs.device = global.device;
    check_config(options->search, "search");
    check_config(options->train, "search");
    check_config(options->data, "search");
    if (options->join) {
      const int64_t done = join_search(options->inputs, options->search, options->train, options->data,
                                       options->quantize, global.seed, options->out);
      print_result(global, {{"trials", done}},
                   fmt::format("{} trials done here; the first worker writes the results", done));
      return;
    }
    const auto artifact = run_stage(
        options->out,
        search_key(options->inputs, options->search, options->train, options->data, options->quantize, global.seed),
        global.if_exists(), [&](ArtifactWriter& out) {
          run_search_stage(options->inputs, options->search, options->train, options->data, options->quantize, out);
        });
    print_result(global, artifact.manifest, describe(artifact));
  });
}

}  // namespace potstill
