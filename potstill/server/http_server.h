// HttpServer: HTTP/1.1 for callers that cannot be trusted. One thread does all reading and writing, so a connection
// that does nothing costs a few kilobytes and no thread; each of its steps has a deadline and a bound in bytes.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace potstill::server {

struct HttpLimits {
  int max_connections = 256;  // one more closes the one that has kept us waiting longest
  size_t max_header_bytes = 16 << 10;
  size_t max_body_bytes = 1 << 20;
  size_t max_unsent_bytes = 1 << 20;                 // of an answer whose reader is slow
  std::chrono::milliseconds header_timeout{10'000};  // from a request's first byte to its last header
  std::chrono::milliseconds body_timeout{30'000};    // for all of the body
  std::chrono::milliseconds write_timeout{30'000};   // for a reader to take what is there
  std::chrono::milliseconds idle_timeout{60'000};    // between two requests
};

struct HttpRequest {
  std::string method, path, query;  // the target up to "?", and what follows it
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;

  // The header's value, "" when absent; names are compared without case.
  std::string_view header(std::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json", body;
  std::vector<std::pair<std::string, std::string>> headers = {};
};

// The answer to one request: one send(), or begin_stream(), write()s and end_stream(). Thread-safe; none of it waits.
// A Reply that is let go without an answer answers 500.
class Reply {
 public:
  virtual ~Reply() = default;
  virtual void send(HttpResponse response) = 0;
  virtual void begin_stream(HttpResponse head) = 0;  // head.body is the first piece
  virtual void write(std::string piece) = 0;
  virtual void end_stream() = 0;
  // Calls back, once, when the client hung up or is too slow; at once if it has already. On the server's thread.
  virtual void on_gone(std::function<void()> callback) = 0;
};

class HttpServer {
 public:
  // Called on the server's thread: must return at once.
  using Handler = std::function<void(HttpRequest request, std::shared_ptr<Reply> reply)>;

  // Listens. Port 0 takes any free one. Throws Error(kUsage | kIo).
  HttpServer(const std::string& host, uint16_t port, const HttpLimits& limits, Handler handler);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  uint16_t port() const;
  int64_t num_connections() const;  // thread-safe, as stop() is
  // Serves until stop(). With handle_signals, SIGINT and SIGTERM stop it too, and a second one ends the process.
  void run(bool handle_signals = false);
  // No new requests; answers under way are finished, at most for `grace`. on_draining is called when that begins.
  void stop(std::chrono::milliseconds grace);
  void on_draining(std::function<void()> callback);
  void set_common_headers(std::vector<std::pair<std::string, std::string>> headers);  // of every answer; before run()
  void set_grace(std::chrono::milliseconds grace);                                    // for signals

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

std::string_view reason_phrase(int status);

}  // namespace potstill::server
