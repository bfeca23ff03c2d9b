// How a subcommand of `potstill` is made:
//
//   void add_merge_command(CLI::App& app, GlobalOptions& global) {
//     auto [command, options] = new_command<MergeOptions>(app, "merge", "Merge a LoRA adapter into its base model");
//     command->add_option("--model", options->model, "base: Hugging Face folder or GGUF")->required();
//     add_config_flags(*command, options->config);          // one flag for each field of MergeConfig
//     command->callback([options = options, &global] { … run_stage(…); print_result(global, …); });
//   }
//
// Each <name>_command.cpp defines one add_<name>_command; potstill_main.cpp lists them.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <type_traits>
#include <utility>

#include "potstill/base/fields.h"
#include "potstill/stages/artifact.h"

namespace potstill {

// Flags that every subcommand takes.
struct GlobalOptions {
  bool quiet = false, verbose = false, json = false, force = false;
  int64_t threads = 0;  // 0 = all CPUs
  uint64_t seed = 0;
  std::string dtype = "auto", device = "auto";

  IfExists if_exists() const { return force ? IfExists::kReplace : IfExists::kRefuse; }
};

// Options live as long as the program: CLI11 keeps references to them until the callback runs.
template <class Options>
std::pair<CLI::App*, std::shared_ptr<Options>> new_command(CLI::App& app, const std::string& name,
                                                           const std::string& description) {
  CLI::App* command = app.add_subcommand(name, description);
  command->fallthrough();  // global flags may stand after the subcommand too
  return {command, std::make_shared<Options>()};
}

namespace command_internal {

struct AddFlags {
  CLI::App& command;
  template <class T>
  void operator()(const char* name, T& value, const char* help, const FieldLimits& limits) {
    std::string flag = "--" + std::string(name);
    for (auto& c : flag) c = c == '_' ? '-' : c;
    std::string text = help;
    for (size_t i = 0; i < limits.choices.size(); ++i) text += (i == 0 ? ": " : "|") + limits.choices[i];
    if constexpr (std::is_same_v<T, bool>) {
      command.add_flag(flag + ",!--no-" + flag.substr(2), value, text)->capture_default_str();
    } else {
      command.add_option(flag, value, text)->capture_default_str();
    }
  }
};

}  // namespace command_internal

// "--lora-alpha" for the field lora_alpha, with the default shown. Limits are checked by check_config in the callback.
template <class Config>
void add_config_flags(CLI::App& command, Config& config) {
  command_internal::AddFlags visitor{command};
  Config::fields(config, visitor);
}

// With --json: the object on stdout. Otherwise `text` on stdout (a table or a few lines; a final "\n" is added).
void print_result(const GlobalOptions& global, const nlohmann::ordered_json& result, const std::string& text);

}  // namespace potstill
