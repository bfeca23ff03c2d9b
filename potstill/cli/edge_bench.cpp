#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <system_error>

#include "potstill/base/error.h"
#include "potstill/base/interrupt.h"
#include "potstill/cli/edge_commands.h"
#include "potstill/edge/bench.h"
#include "potstill/edge/random_model.h"

namespace potstill {
namespace {

struct BenchFlags {
  EdgeModelFlags model;
  edge::BenchOptions bench;
  std::string random_model;
};

// A model of random weights: in the file that was asked for, or in one that goes with this object.
class RandomModelFile {
 public:
  RandomModelFile(const std::string& shape, const std::string& asked) : path_(asked), kept_(!asked.empty()) {
    if (!kept_) {
      path_ = std::filesystem::temp_directory_path() / fmt::format("potstill-random-{}-{}.gguf", shape, ::getpid());
    } else if (std::filesystem::exists(path_)) {
      throw Error(ErrorKind::kUsage, asked, "exists, and --random-model would write over it",
                  "name another file, or leave out --random-model to measure this one");
    }
    edge::write_random_model(shape, path_);
  }
  ~RandomModelFile() {
    std::error_code ignored;
    if (!kept_) std::filesystem::remove(path_, ignored);
  }
  RandomModelFile(const RandomModelFile&) = delete;
  RandomModelFile& operator=(const RandomModelFile&) = delete;
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
  bool kept_;
};

void bench(BenchFlags& options, const EdgeGlobal& global) {
  install_interrupt_handler();
  std::unique_ptr<RandomModelFile> random;
  if (!options.random_model.empty()) {
    random = std::make_unique<RandomModelFile>(options.random_model, options.model.model);
    options.model.model = random->path();
  } else if (options.model.model.empty()) {
    throw Error(ErrorKind::kUsage, "bench", "no model was given", "give a GGUF file, or --random-model 3b");
  }
  const auto model = options.model.open();
  const auto result = edge::run_bench(*model, options.bench);
  fmt::print("{}\n", global.json ? result.dump(2) : edge::bench_text(result));
}

}  // namespace

void add_edge_bench(CLI::App& app, EdgeGlobal& global) {
  auto options = std::make_shared<BenchFlags>();
  CLI::App* command = app.add_subcommand("bench", "Measure prompt and decode speed, latency and memory");
  command->fallthrough();
  options->model.long_lived = true;
  options->model.add_to(*command, /*required=*/false);
  command->add_option("--random-model", options->random_model,
                      fmt::format("measure random weights of this shape ({}); the model argument, if any, is the file "
                                  "to write them to and keep",
                                  edge::random_model_shapes()));
  command->add_option("--prompt", options->bench.prompt, "tokens of the prompt")->capture_default_str();
  command->add_option("--generate", options->bench.generate, "tokens decoded after it")->capture_default_str();
  command->add_option("--repetitions", options->bench.repetitions, "runs; medians are reported")->capture_default_str();
  command->footer(
      "Examples:\n"
      "  potstill-edge bench student.gguf --prompt 512 --generate 128 --threads 2\n"
      "  potstill-edge bench --random-model 3b --prompt 64 --generate 32\n"
      "  POTSTILL_ISA=avx2 potstill-edge bench student.gguf --activations 8 --json");
  command->callback([options, &global] { bench(*options, global); });
}

}  // namespace potstill
