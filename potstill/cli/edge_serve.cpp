#include <fmt/format.h>

#include <cstdlib>
#include <fstream>

#include "potstill/base/error.h"
#include "potstill/base/log.h"
#include "potstill/cli/edge_commands.h"
#include "potstill/edge/scheduler.h"
#include "potstill/server/server.h"

namespace potstill {
namespace {

struct ServeOptions {
  EdgeModelFlags model;
  edge::SchedulerOptions scheduler;
  server::ServerOptions server;
  std::string key_file;
  int64_t timeout_s = 300, grace_s = 30, max_body_kib = 1024;
  bool open = false;
};

// Out of the environment or a file: a flag would show in the list of processes.
std::string read_key(const std::string& file) {
  std::string key;
  if (!file.empty()) {
    std::ifstream in(file);
    if (!std::getline(in, key)) {
      throw Error(ErrorKind::kIo, file, "has no API key in its first line", "write one there, readable for you alone");
    }
  } else if (const char* value = std::getenv("POTSTILL_API_KEY")) {
    key = value;
  }
  while (!key.empty() && (key.back() == '\r' || key.back() == ' ')) key.pop_back();
  return key;
}

void serve(ServeOptions& options, const EdgeGlobal& global) {
  options.server.api_key = read_key(options.key_file);
  const std::string& host = options.server.host;
  const bool loopback = host == "127.0.0.1" || host == "localhost" || host == "::1";
  if (!loopback && options.server.api_key.empty() && !options.open) {
    throw Error(ErrorKind::kUsage, "--host", fmt::format("'{}' lets other machines in, and there is no API key", host),
                "set POTSTILL_API_KEY or --api-key-file, or say --open when everybody may come");
  }
  options.server.request_timeout = std::chrono::seconds(options.timeout_s);
  options.server.grace = std::chrono::seconds(options.grace_s);
  options.server.http.max_body_bytes = static_cast<size_t>(options.max_body_kib) << 10;
  const auto model = options.model.open();
  if (options.server.model_name.empty()) options.server.model_name = model->package().path.stem().string();
  edge::Scheduler scheduler(*model, options.scheduler);
  server::Server server(scheduler, options.server);
  if (!global.quiet) {
    const std::string address = host.find(':') == std::string::npos ? host : "[" + host + "]";
    fmt::print(stderr,
               "{} on http://{}:{}  (API under /v1, chat page at /; Ctrl-C stops)\n"
               "{} answers at a time, context {}: at most {} of keys and values beside the model\n",
               options.server.model_name, address, server.port(), options.scheduler.slots, model->cache().capacity(),
               format_bytes(2 * model->cache().bytes_per_position() * static_cast<uint64_t>(model->cache().capacity()) *
                            static_cast<uint64_t>(options.scheduler.slots)));
  }
  server.run(/*handle_signals=*/true);
}

}  // namespace

void add_edge_serve(CLI::App& app, EdgeGlobal& global) {
  auto options = std::make_shared<ServeOptions>();
  CLI::App* command = app.add_subcommand("serve", "Answer over HTTP: OpenAI's API, metrics, a chat page");
  command->fallthrough();
  options->model.long_lived = true;
  options->model.add_to(*command);
  auto& server = options->server;
  command->add_option("--host", server.host, "address to listen on")->capture_default_str();
  command->add_option("--port", server.port, "port (0 = any free one)")->capture_default_str();
  command->add_option("--model-name", server.model_name, "the model's name for clients; default: the file's");
  command->add_option("--parallel", options->scheduler.slots, "answers written at a time")->capture_default_str();
  command->add_option("--queue", options->scheduler.max_queued, "answers that may wait for a place; more get 503")
      ->check(CLI::Range(0, 100000))
      ->capture_default_str();
  command->add_option("--max-tokens", server.max_tokens, "longest answer where a request names none")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24))
      ->capture_default_str();
  command->add_option("--timeout", options->timeout_s, "seconds that a request may take, waiting included")
      ->check(CLI::Range(1, 86400))
      ->capture_default_str();
  command->add_option("--max-body", options->max_body_kib, "largest request, in KiB")
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  command->add_option("--max-connections", server.http.max_connections, "open connections; one more ends the idlest")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  command->add_option("--grace", options->grace_s, "seconds for answers under way when it is stopped")
      ->check(CLI::Range(0, 3600))
      ->capture_default_str();
  command->add_option("--api-key-file", options->key_file,
                      "file whose first line is the key that clients must show; else POTSTILL_API_KEY, if set");
  command->add_option("--cors", server.cors_origin, "pages of this origin may call too (\"*\" = of any)");
  command->add_flag("--open", options->open, "other machines may come without a key");
  command->footer(
      "Examples:\n"
      "  potstill-edge serve student.gguf\n"
      "  POTSTILL_API_KEY=secret potstill-edge serve student.gguf --host 0.0.0.0 --parallel 4 --context 2048\n"
      "  curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' \\\n"
      "       -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Why does ice float?\"}]}'");
  command->callback([options, &global] { serve(*options, global); });
}

}  // namespace potstill
