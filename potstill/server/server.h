// Server: OpenAI's HTTP API, metrics and a chat page over a TextEngine.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "potstill/lm/text_engine.h"
#include "potstill/server/http_server.h"

namespace potstill::server {

struct ServerOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 8080;
  std::string model_name;                     // as clients see it; "" = the engine's
  std::string api_key;                        // "" = none is asked for
  std::string cors_origin;                    // pages of this origin may call; "" = only our own page, "*" = any
  int64_t max_tokens = 1024;                  // of an answer whose request names no number
  std::chrono::seconds request_timeout{300};  // from a request's arrival to the end of its answer
  std::chrono::seconds grace{30};             // for answers under way when the server is told to stop
  HttpLimits http;
};

class Server {
 public:
  // Listens; borrows the engine. Throws Error(kUsage | kIo).
  Server(TextEngine& engine, const ServerOptions& options);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  uint16_t port() const;
  void run(bool handle_signals);               // until stop() or a signal
  void stop(std::chrono::milliseconds grace);  // thread-safe

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Equal, in a time that depends on the lengths alone.
bool equal_in_constant_time(std::string_view a, std::string_view b);

}  // namespace potstill::server
