// The subcommands of potstill-edge, and the flags that they share.
#pragma once

#include <CLI/CLI.hpp>
#include <atomic>
#include <memory>
#include <optional>
#include <string>

#include "potstill/edge/edge_model.h"

namespace potstill {

struct EdgeGlobal {
  bool quiet = false, json = false;
};

// Flags of every command that runs a model.
struct EdgeModelFlags {
  std::string model, activations = "auto", kv_cache = "16";
  int threads = 0;
  std::optional<bool> repack;  // unset: as the command does
  bool long_lived = false;     // the command runs for many answers: what pays only after some is done
  int64_t context = 0;

  void add_to(CLI::App& command, bool required = true);
  std::unique_ptr<edge::EdgeModel> open() const;
};

struct SamplingFlags {
  SamplingParams params;
  int64_t max_tokens = 256;

  // Chat draws by default, complete takes the likeliest.
  void add_to(CLI::App& command, double default_temperature);
};

void add_edge_chat(CLI::App& app, EdgeGlobal& global);
void add_edge_complete(CLI::App& app, EdgeGlobal& global);
void add_edge_bench(CLI::App& app, EdgeGlobal& global);
void add_edge_perplexity(CLI::App& app, EdgeGlobal& global);
void add_edge_serve(CLI::App& app, EdgeGlobal& global);

// Ctrl-C while an answer is written: set by the signal, read between tokens, reset by who reads it.
extern std::atomic<bool> g_answer_stopped;
void install_answer_interrupt();

}  // namespace potstill
