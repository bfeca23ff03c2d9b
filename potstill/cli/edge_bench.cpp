#include <fmt/format.h>

#include "potstill/base/interrupt.h"
#include "potstill/cli/edge_commands.h"
#include "potstill/edge/bench.h"

namespace potstill {
namespace {

struct BenchFlags {
  EdgeModelFlags model;
  edge::BenchOptions bench;
};

}  // namespace

void add_edge_bench(CLI::App& app, EdgeGlobal& global) {
  auto options = std::make_shared<BenchFlags>();
  CLI::App* command = app.add_subcommand("bench", "Measure prompt and decode speed, latency and memory");
  command->fallthrough();
  options->model.add_to(*command);
  command->add_option("--prompt", options->bench.prompt, "tokens of the prompt")->capture_default_str();
  command->add_option("--generate", options->bench.generate, "tokens decoded after it")->capture_default_str();
  command->add_option("--repetitions", options->bench.repetitions, "runs; medians are reported")->capture_default_str();
  command->footer(
      "Examples:\n"
      "  potstill-edge bench student.gguf --prompt 512 --generate 128 --threads 2\n"
      "  POTSTILL_ISA=avx2 potstill-edge bench student.gguf --activations q8 --json");
  command->callback([options, &global] {
    install_interrupt_handler();
    const auto model = options->model.open();
    const auto result = edge::run_bench(*model, options->bench);
    fmt::print("{}\n", global.json ? result.dump(2) : edge::bench_text(result));
  });
}

}  // namespace potstill
