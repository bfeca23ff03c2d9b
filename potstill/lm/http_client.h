// HttpClient: many POSTs of JSON at a time to one server that may be slow, busy or broken, over libcurl: certificates
// are checked, the usual proxy variables are honoured, redirects are not followed (the key goes to nobody else).
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace potstill {

struct HttpClientOptions {
  std::string url;      // "https://host/v1", no user or password in it
  std::string key;      // Authorization: Bearer …; "" = none. Never in a log line or an error.
  int concurrency = 8;  // requests in flight at most; fewer while the server says that it is busy
  int max_tries = 8;    // of one request
  std::chrono::milliseconds timeout{180'000};    // of one try
  std::chrono::milliseconds first_pause{1'000};  // after a failed try; doubled with each further one, up to a minute
};

// What became of one request.
struct HttpAnswer {
  int status = 0;
  std::string body;
};

class HttpClient {
 public:
  // Throws Error(kUsage) for a URL or key that cannot be one.
  explicit HttpClient(HttpClientOptions options);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // The next request, or false when there is none left (for now: it is asked again when an answer came).
  using Next = std::function<bool(size_t& index, std::string& path, std::string& body)>;
  // An answer of status 2xx or one that trying again would not change (4xx). Returns false when the body is no whole
  // answer: it is asked for again. May throw, which ends run().
  using OnAnswer = std::function<bool(size_t index, HttpAnswer answer)>;

  // Asks until `next` has no more and all is answered. Busy (429), failing (5xx) and silent servers are asked again
  // after the time they name (Retry-After) or a growing one, with fewer requests in flight. Throws Error(kNetwork) when
  // a request failed max_tries times, Error(kInterrupted) on Ctrl-C.
  void run(const Next& next, const OnAnswer& on_answer);

  int64_t num_tries() const { return num_tries_; }
  int64_t num_retries() const { return num_retries_; }
  std::string without_key(std::string text) const;  // for messages that quote the server

 private:
  struct Transfer;
  struct Run;
  HttpClientOptions options_;
  int64_t num_tries_ = 0, num_retries_ = 0;
};

// "http://…" or "https://…".
bool is_endpoint(const std::string& text);

}  // namespace potstill
