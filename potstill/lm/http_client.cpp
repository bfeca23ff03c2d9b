#include "potstill/lm/http_client.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <ctime>
#include <deque>
#include <random>
#include <utility>
#include <vector>

#include "potstill/base/error.h"
#include "potstill/base/interrupt.h"
#include "potstill/base/log.h"

namespace potstill {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr size_t kMaxAnswerBytes = 64 << 20;  // an answer of a million tokens with all their log-probabilities
constexpr milliseconds kLongestPause{60'000}, kLongestRetryAfter{600'000};

bool is_worth_another_try(long status) {
  return status == 408 || status == 409 || status == 425 || status == 429 || status >= 500;
}

}  // namespace

bool is_endpoint(const std::string& text) { return text.rfind("http://", 0) == 0 || text.rfind("https://", 0) == 0; }

// One request through all of its tries.
struct HttpClient::Transfer {
  size_t index = 0;
  std::string path, body, url;
  int tries = 0;
  Clock::time_point not_before{};
  // of the try under way:
  std::string answer;
  int64_t retry_after = -1;  // ms; below 0: the server names no time
  bool too_large = false;

  static size_t on_body(char* data, size_t size, size_t count, void* self) {
    auto& transfer = *static_cast<Transfer*>(self);
    if (transfer.answer.size() + size * count > kMaxAnswerBytes) {
      transfer.too_large = true;
      return 0;
    }
    transfer.answer.append(data, size * count);
    return size * count;
  }
  static size_t on_header(char* data, size_t size, size_t count, void* self) {
    auto& transfer = *static_cast<Transfer*>(self);
    const std::string_view line(data, size * count);
    if (const auto value = header_value(line, "retry-after-ms:"); !value.empty()) {
      transfer.retry_after = number_in(value);
    } else if (const auto when = header_value(line, "retry-after:"); !when.empty()) {
      // Seconds, or a date; what is neither is read as nothing, and the growing pause stands.
      transfer.retry_after = number_in(when) * 1000;
      if (transfer.retry_after < 0) {
        const time_t date = curl_getdate(std::string(when).c_str(), nullptr);
        if (date >= 0) transfer.retry_after = std::max<int64_t>(0, date - std::time(nullptr)) * 1000;
      }
    }
    return size * count;
  }
  static std::string_view header_value(std::string_view line, std::string_view name) {
    const bool is_it = line.size() > name.size() && std::equal(name.begin(), name.end(), line.begin(),
                                                               [](char a, char b) { return a == std::tolower(b); });
    if (!is_it) return {};
    line.remove_prefix(std::min(line.find_first_not_of(' ', name.size()), line.size()));
    while (!line.empty() && (line.back() == '\r' || line.back() == '\n' || line.back() == ' ')) line.remove_suffix(1);
    return line;
  }
  static int64_t number_in(std::string_view text) {  // -1: it is none
    int64_t number = -1;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    return error == std::errc() && end == text.data() + text.size() && number >= 0 && number < 1'000'000'000 ? number
                                                                                                             : -1;
  }
};

// The state of one run().
struct HttpClient::Run {
  Run(HttpClient& http_client, const Next& next_request, const OnAnswer& answered)
      : client(http_client),
        options(http_client.options_),
        next(next_request),
        on_answer(answered),
        multi(curl_multi_init()),
        allowed(options.concurrency) {
    headers = curl_slist_append(headers, "Content-Type: application/json");
    headers = curl_slist_append(headers, "Accept: application/json");
    if (!options.key.empty()) headers = curl_slist_append(headers, ("Authorization: Bearer " + options.key).c_str());
  }
  ~Run() {
    for (auto& [easy, transfer] : in_flight) {
      curl_multi_remove_handle(multi, easy);
      curl_easy_cleanup(easy);
    }
    curl_multi_cleanup(multi);
    curl_slist_free_all(headers);
  }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  HttpClient& client;
  const HttpClientOptions& options;
  const Next& next;
  const OnAnswer& on_answer;
  CURLM* multi;
  curl_slist* headers = nullptr;
  double allowed;  // requests in flight: halved by a busy server, grown by one for each `allowed` answers
  Clock::time_point quiet_until{};
  std::vector<std::pair<CURL*, std::unique_ptr<Transfer>>> in_flight;
  std::vector<std::unique_ptr<Transfer>> waiting;  // for another try
  std::mt19937_64 jitter{std::random_device{}()};

  void start(std::unique_ptr<Transfer> transfer);
  void start_what_may();
  void finish(CURL* easy, CURLcode code);
  void try_again(std::unique_ptr<Transfer> transfer, bool busy, const std::string& why);
  milliseconds time_to_wait() const;
};

void HttpClient::Run::start(std::unique_ptr<Transfer> transfer) {
  CURL* easy = curl_easy_init();
  transfer->answer.clear();
  transfer->retry_after = -1;
  transfer->url = options.url + transfer->path;
  ++transfer->tries;
  ++client.num_tries_;
  const auto set = [easy](CURLoption option, auto value) { curl_easy_setopt(easy, option, value); };
  set(CURLOPT_URL, transfer->url.c_str());
  set(CURLOPT_PROTOCOLS_STR, "http,https");
  set(CURLOPT_HTTPHEADER, headers);
  set(CURLOPT_POSTFIELDS, transfer->body.c_str());
  set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(transfer->body.size()));
  set(CURLOPT_WRITEFUNCTION, &Transfer::on_body);
  set(CURLOPT_WRITEDATA, transfer.get());
  set(CURLOPT_HEADERFUNCTION, &Transfer::on_header);
  set(CURLOPT_HEADERDATA, transfer.get());
  set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(std::min<int64_t>(20'000, options.timeout.count())));
  set(CURLOPT_TIMEOUT_MS, static_cast<long>(options.timeout.count()));
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_FOLLOWLOCATION, 0L);
  set(CURLOPT_ACCEPT_ENCODING, "");
  set(CURLOPT_USERAGENT, "potstill/" POTSTILL_VERSION);
  curl_multi_add_handle(multi, easy);
  in_flight.emplace_back(easy, std::move(transfer));
}

void HttpClient::Run::start_what_may() {
  const auto now = Clock::now();
  if (now < quiet_until) return;
  const auto room = [this] { return static_cast<double>(in_flight.size()) < std::max(1.0, allowed); };
  for (size_t i = 0; i < waiting.size() && room();) {
    if (waiting[i]->not_before > now) {
      ++i;
      continue;
    }
    auto transfer = std::move(waiting[i]);
    waiting.erase(waiting.begin() + static_cast<ptrdiff_t>(i));
    start(std::move(transfer));
  }
  while (room()) {
    auto transfer = std::make_unique<Transfer>();
    if (!next(transfer->index, transfer->path, transfer->body)) return;
    start(std::move(transfer));
  }
}

void HttpClient::Run::finish(CURL* easy, CURLcode code) {
  const auto found =
      std::find_if(in_flight.begin(), in_flight.end(), [&](const auto& each) { return each.first == easy; });
  auto transfer = std::move(found->second);
  in_flight.erase(found);
  long status = 0;
  curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
  curl_multi_remove_handle(multi, easy);
  curl_easy_cleanup(easy);
  if (transfer->too_large) {
    throw Error(ErrorKind::kNetwork, options.url, fmt::format("an answer is larger than {} bytes", kMaxAnswerBytes));
  }
  if (code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE) {
    throw Error(ErrorKind::kNetwork, options.url,
                fmt::format("its certificate cannot be trusted: {}", curl_easy_strerror(code)),
                "check the address; a certificate authority of your own goes into SSL_CERT_FILE");
  }
  if (code == CURLE_URL_MALFORMAT) {
    throw Error(ErrorKind::kUsage, options.url, "is no address of an endpoint",
                "http://host:port/v1 or https://host/v1");
  }
  if (code != CURLE_OK) return try_again(std::move(transfer), true, curl_easy_strerror(code));
  if (is_worth_another_try(status)) return try_again(std::move(transfer), true, fmt::format("status {}", status));
  const bool whole = on_answer(transfer->index, {static_cast<int>(status), std::move(transfer->answer)});
  if (!whole) return try_again(std::move(transfer), false, "an answer that is cut off or is no JSON");
  allowed = std::min<double>(options.concurrency, allowed + 1 / std::max(1.0, allowed));
}

void HttpClient::Run::try_again(std::unique_ptr<Transfer> transfer, bool busy, const std::string& why) {
  if (transfer->tries >= options.max_tries) {
    throw Error(ErrorKind::kNetwork, options.url, fmt::format("{} after {} tries", why, transfer->tries),
                "what was answered is kept: the same command goes on from there");
  }
  ++client.num_retries_;
  const auto grown = options.first_pause * (int64_t{1} << std::min(transfer->tries - 1, 16));
  milliseconds pause = std::min<milliseconds>(kLongestPause, grown);
  pause += milliseconds(
      static_cast<int64_t>(std::uniform_real_distribution<>(0, 0.25)(jitter) * static_cast<double>(pause.count())));
  if (transfer->retry_after >= 0) {
    // The server's own word, for everybody in flight.
    pause = std::min<milliseconds>(kLongestRetryAfter, milliseconds(transfer->retry_after));
    quiet_until = std::max(quiet_until, Clock::now() + pause);
  }
  if (busy) allowed = std::max(1.0, allowed / 2);
  log_debug("{}: {}; try {} in {} ms, at most {} in flight", options.url, why, transfer->tries + 1, pause.count(),
            static_cast<int>(allowed));
  transfer->not_before = Clock::now() + pause;
  waiting.push_back(std::move(transfer));
}

milliseconds HttpClient::Run::time_to_wait() const {
  Clock::time_point first = Clock::now() + milliseconds(250);  // Ctrl-C is looked for that often
  for (const auto& transfer : waiting) first = std::min(first, std::max(transfer->not_before, quiet_until));
  return std::max(milliseconds(1), std::chrono::duration_cast<milliseconds>(first - Clock::now()));
}

HttpClient::HttpClient(HttpClientOptions options) : options_(std::move(options)) {
  static const CURLcode kInitialized = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (kInitialized != CURLE_OK) throw Error(ErrorKind::kNetwork, "libcurl", "does not start");
  while (options_.url.ends_with('/')) options_.url.pop_back();
  const size_t host = options_.url.find("://");
  const size_t host_end = host == std::string::npos ? host : options_.url.find('/', host + 3);
  if (!is_endpoint(options_.url) || options_.url.size() <= host + 3) {
    throw Error(ErrorKind::kUsage, "teacher", "is no address of an endpoint", "http://host:port/v1 or https://host/v1");
  }
  if (options_.url.substr(0, host_end).find('@') != std::string::npos) {
    throw Error(ErrorKind::kUsage, "teacher", "has a user or password in its address",
                "addresses are written into logs and artifacts; put the key into POTSTILL_TEACHER_API_KEY");
  }
  if (std::any_of(options_.key.begin(), options_.key.end(), [](unsigned char c) { return c <= ' ' || c >= 127; })) {
    throw Error(ErrorKind::kUsage, "POTSTILL_TEACHER_API_KEY", "has blanks or other characters that no key has");
  }
}

HttpClient::~HttpClient() = default;

std::string HttpClient::without_key(std::string text) const {
  if (options_.key.empty()) return text;
  for (size_t at; (at = text.find(options_.key)) != std::string::npos;) text.replace(at, options_.key.size(), "…");
  return text;
}

void HttpClient::run(const Next& next, const OnAnswer& on_answer) {
  Run run(*this, next, on_answer);
  for (;;) {
    throw_if_interrupted();
    run.start_what_may();
    if (run.in_flight.empty() && run.waiting.empty()) return;
    int running = 0, left = 0;
    curl_multi_perform(run.multi, &running);
    bool any = false;
    while (CURLMsg* message = curl_multi_info_read(run.multi, &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      any = true;
      run.finish(message->easy_handle, message->data.result);
    }
    if (!any) curl_multi_poll(run.multi, nullptr, 0, static_cast<int>(run.time_to_wait().count()), nullptr);
  }
}

}  // namespace potstill
