// potstill: reads the command line, runs one subcommand, turns what it throws into a message and an exit status.
#include <fmt/format.h>

#include <cstdio>
#include <new>

#include "potstill/base/error.h"
#include "potstill/base/interrupt.h"
#include "potstill/base/log.h"
#include "potstill/base/machine.h"
#include "potstill/cli/command.h"
#include "potstill/stages/threads.h"

namespace potstill {

// <name>_command.cpp each, in the order of --help.
using AddCommand = void(CLI::App& app, GlobalOptions& global);
AddCommand add_run_command, add_synth_command, add_teach_command, add_search_command, add_train_command,
    add_merge_command, add_quantize_command, add_export_command, add_evaluate_command, add_compare_command,
    add_diagnose_command, add_study_command, add_perplexity_command, add_prune_command, add_inspect_command,
    add_report_command;

namespace {

void add_global_flags(CLI::App& app, GlobalOptions& global) {
  app.set_version_flag("--version", "potstill " POTSTILL_VERSION);
  app.add_flag("-q,--quiet", global.quiet, "no progress and no notes, only warnings and errors");
  app.add_flag("-v,--verbose", global.verbose, "more notes");
  app.add_flag("--json", global.json, "the result as JSON on stdout; everything else goes to stderr");
  app.add_flag("--force", global.force, "replace an --out that holds something else");
  app.add_option("--threads", global.threads, "threads (0 = every CPU)")->check(CLI::Range(0, 1024));
  app.add_option("--seed", global.seed, "seed of every random choice: same seed, same bytes");
  app.add_option("--dtype", global.dtype,
                 "arithmetic: auto (bf16 where the processor multiplies it natively)|fp32|bf16");
  app.add_option("--device", global.device, "auto (the first GPU, else the CPU)|cpu|cuda|cuda:N");
}

int run(int argc, char** argv) {
  CLI::App app{"potstill: from a big teacher to a 4-bit file for a small machine, for one task"};
  app.footer(
      "`potstill run recipes/quickstart.yaml` shows every stage on a real model; `potstill <command> --help` tells "
      "more.");
  app.require_subcommand(1);
  app.fallthrough();
  GlobalOptions global;
  add_global_flags(app, global);
  // Settings that every command shares take effect before its callback, once all flags are read.
  app.parse_complete_callback([&global] {
    set_verbosity(global.quiet ? Verbosity::kQuiet : global.verbose ? Verbosity::kVerbose : Verbosity::kNormal);
    set_num_threads(global.threads > 0 ? static_cast<int>(global.threads) : num_cpus());
  });
  for (AddCommand* add :
       {add_run_command, add_synth_command, add_teach_command, add_search_command, add_train_command, add_merge_command,
        add_quantize_command, add_export_command, add_evaluate_command, add_compare_command, add_diagnose_command,
        add_study_command, add_perplexity_command, add_prune_command, add_inspect_command, add_report_command}) {
    add(app, global);
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);  // prints help, version or the complaint
    return code == 0 ? 0 : 2;
  }
  return 0;
}

int report_out_of_memory() {
  fmt::print(stderr,
             "error: out of memory ({} in use at the peak)\n  hint: a smaller batch, --dtype bf16 or a smaller model\n",
             format_bytes(peak_rss_bytes()));
  return 7;
}

// LibTorch's exceptions carry a backtrace, which tells a user nothing, and its allocators throw no bad_alloc.
int report_foreign(std::string_view what) {
  for (const std::string_view sign : {"can't allocate memory", "not enough memory", "out of memory"}) {
    if (what.find(sign) != std::string_view::npos) return report_out_of_memory();
  }
  for (const std::string_view trace : {"\nException raised from", "\nframe #0"}) {
    what = what.substr(0, what.find(trace));
  }
  fmt::print(stderr, "error: {}\n  hint: this should not happen; please report it with the command that you gave\n",
             what);
  return 1;
}

}  // namespace
}  // namespace potstill

int main(int argc, char** argv) {
  potstill::install_interrupt_handler();
  potstill::limit_kernel_cache();
  try {
    return potstill::run(argc, argv);
  } catch (const potstill::Error& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return error.exit_code();
  } catch (const std::bad_alloc&) {
    return potstill::report_out_of_memory();
  } catch (const std::exception& error) {
    return potstill::report_foreign(error.what());
  }
}
