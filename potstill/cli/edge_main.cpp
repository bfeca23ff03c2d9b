// potstill-edge: the small runtime's command line.
#include <fmt/format.h>

#include <cstdio>
#include <new>

#include "potstill/base/error.h"
#include "potstill/base/log.h"
#include "potstill/base/machine.h"
#include "potstill/cli/edge_commands.h"

namespace potstill {
namespace {

int run(int argc, char** argv) {
  CLI::App app{"potstill-edge: runs a GGUF model on a small machine"};
  app.set_version_flag("--version", "potstill-edge " POTSTILL_VERSION);
  app.footer(
      "`potstill-edge chat MODEL.gguf` talks; `potstill-edge <command> --help` tells more.\n"
      "POTSTILL_ISA=portable|neon|avx2|avx512 chooses the instruction set; unset, the machine's best.");
  app.require_subcommand(1);
  app.fallthrough();
  EdgeGlobal global;
  app.add_flag("-q,--quiet", global.quiet, "no notes on stderr, only warnings and errors");
  app.add_flag("--json", global.json, "the result as JSON on stdout");
  app.parse_complete_callback([&global] { set_verbosity(global.quiet ? Verbosity::kQuiet : Verbosity::kNormal); });
  add_edge_chat(app, global);
  add_edge_complete(app, global);
  add_edge_serve(app, global);
  add_edge_bench(app, global);
  add_edge_perplexity(app, global);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;  // prints help, version or the complaint
  }
  return 0;
}

}  // namespace
}  // namespace potstill

int main(int argc, char** argv) {
  try {
    return potstill::run(argc, argv);
  } catch (const potstill::Error& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return error.exit_code();
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "error: out of memory ({} in use at the peak)\n  hint: a shorter --context or a smaller model\n",
               potstill::format_bytes(potstill::peak_rss_bytes()));
    return 7;
  } catch (const std::exception& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return 1;
  }
}
