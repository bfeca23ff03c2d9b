#include "potstill/server/http_server.h"

#include <fmt/format.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include <atomic>
#include <boost/asio.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <deque>
#include <list>
#include <mutex>
#include <optional>

#include "potstill/base/error.h"
#include "potstill/base/log.h"

namespace potstill::server {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using tcp = asio::ip::tcp;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;

class Connection;

// What the connections share.
struct Shared {
  HttpLimits limits;
  HttpServer::Handler handler;
  std::vector<std::pair<std::string, std::string>> common_headers;
  std::list<std::shared_ptr<Connection>> connections;
  std::atomic<int64_t> num_connections{0};
  bool draining = false;
  std::function<void()> on_change = [] {};  // a connection went
};

// One client. All of it runs on the server's thread.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  enum class State { kIdle, kReading, kAnswering, kClosed };

  Connection(tcp::socket socket, Shared& shared)
      : socket_(std::move(socket)), timer_(socket_.get_executor()), shared_(shared) {
    error_code ignored;
    socket_.set_option(tcp::no_delay(true), ignored);
    socket_.set_option(asio::socket_base::keep_alive(true), ignored);
#ifdef TCP_USER_TIMEOUT
    const unsigned timeout = static_cast<unsigned>(shared.limits.write_timeout.count());
    ::setsockopt(socket_.native_handle(), IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof timeout);
#endif
  }

  State state() const { return state_; }
  Clock::time_point waiting_since() const { return waiting_since_; }
  asio::any_io_executor executor() { return socket_.get_executor(); }
  std::list<std::shared_ptr<Connection>>::iterator place;  // in Shared::connections

  // A fresh connection has the header's time for its first byte, a later request the idle time.
  void start() { wait_for_request(shared_.limits.header_timeout); }
  void refuse(int status, const std::string& message) {
    state_ = State::kAnswering;
    keep_alive_ = false;
    send(error_response(status, message));
  }
  void close() {
    if (state_ == State::kClosed) return;
    const auto self = shared_from_this();
    state_ = State::kClosed;
    error_code ignored;
    timer_.cancel();
    socket_.close(ignored);
    shared_.connections.erase(place);
    --shared_.num_connections;
    gone();
    shared_.on_change();
  }
  // The process leaves: answers are finished, what only waits is not.
  void drain() {
    keep_alive_ = false;
    if (state_ == State::kIdle || state_ == State::kReading) close();
  }

  // --- of the answer; `number` tells a late Reply that its request is over
  uint64_t number() const { return number_; }
  std::atomic<size_t> unsent{0};
  void send(HttpResponse response);
  void begin_stream(HttpResponse head);
  void write(std::string piece);
  void end_stream();
  void set_on_gone(std::function<void()> callback) { on_gone_ = std::move(callback); }

 private:
  static HttpResponse error_response(int status, const std::string& message) {
    // The messages are ours and have no character that JSON would escape.
    HttpResponse response;
    response.status = status;
    response.body = fmt::format(
        R"({{"error":{{"message":"{}","type":"invalid_request_error","param":null,"code":null}}}})", message);
    return response;
  }

  void arm(std::chrono::milliseconds time) {
    timer_.expires_after(time);
    timer_.async_wait([self = shared_from_this()](error_code error) {
      if (!error) self->close();
    });
  }

  void wait_for_request(std::chrono::milliseconds time) {
    state_ = State::kIdle;
    waiting_since_ = Clock::now();
    if (buffer_.size() > 0) return read_header();
    arm(time);
    watch();
  }

  // Waits until there is something to read, which while an answer is made can mean that the client hung up.
  void watch() {
    if (watching_) return;
    watching_ = true;
    socket_.async_wait(tcp::socket::wait_read, [self = shared_from_this()](error_code error) {
      self->watching_ = false;
      if (self->state_ == State::kClosed) return;
      if (error) return self->close();
      if (self->state_ == State::kIdle) return self->read_header();
      if (self->state_ != State::kAnswering) return;
      char byte;
      const ssize_t got = ::recv(self->socket_.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
      if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) self->close();
      // else: the next request is there already; it is read when this one is answered
    });
  }

  void read_header() {
    state_ = State::kReading;
    parser_.emplace();
    parser_->header_limit(static_cast<uint32_t>(shared_.limits.max_header_bytes));
    parser_->body_limit(shared_.limits.max_body_bytes);
    arm(shared_.limits.header_timeout);
    http::async_read_header(socket_, buffer_, *parser_, [self = shared_from_this()](error_code error, size_t) {
      if (self->state_ == State::kClosed) return;
      if (error) return self->refuse_bad(error);
      self->read_body();
    });
  }

  void read_body() {
    arm(shared_.limits.body_timeout);
    if (parser_->get()[http::field::expect] == "100-continue" && !parser_->is_done()) {
      static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
      asio::async_write(socket_, asio::buffer(kContinue), [self = shared_from_this()](error_code error, size_t) {
        if (error) return self->close();
        if (self->state_ == State::kReading) self->read_rest();
      });
      return;
    }
    read_rest();
  }

  void read_rest() {
    http::async_read(socket_, buffer_, *parser_, [self = shared_from_this()](error_code error, size_t) {
      if (self->state_ == State::kClosed) return;
      if (error) return self->refuse_bad(error);
      self->handle();
    });
  }

  void refuse_bad(error_code error) {
    if (error == http::error::end_of_stream ||
        error.category() != http::make_error_code(http::error::bad_method).category()) {
      return close();  // hung up, reset, timed out
    }
    if (error == http::error::body_limit) {
      return refuse(413, fmt::format("the body is larger than {} bytes", shared_.limits.max_body_bytes));
    }
    if (error == http::error::header_limit || error == http::error::buffer_overflow) {
      return refuse(431, fmt::format("the headers are larger than {} bytes", shared_.limits.max_header_bytes));
    }
    if (error == http::error::partial_message) return close();
    refuse(400, "this is not HTTP/1.1 as RFC 9112 has it");
  }

  void handle();
  void respond(const HttpResponse& response, bool streamed);
  void write_more();
  void answered();
  void linger();
  void gone() {
    if (on_gone_) std::exchange(on_gone_, {})();
  }

  tcp::socket socket_;
  asio::steady_timer timer_;
  Shared& shared_;
  State state_ = State::kIdle;
  Clock::time_point waiting_since_ = Clock::now();
  bool watching_ = false, keep_alive_ = true, is_head_ = false, chunked_ = false, writing_ = false, complete_ = false;
  boost::beast::flat_buffer buffer_{64 << 10};
  std::optional<http::request_parser<http::string_body>> parser_;
  uint64_t number_ = 0;
  std::string ready_, in_flight_;  // bytes that wait, and those of the write under way
  std::array<char, 4096> scratch_{};
  size_t num_lingered_ = 0;
  std::function<void()> on_gone_;
};

// A Reply may be used from any thread: it posts to the connection's.
class ConnectionReply : public Reply {
 public:
  ConnectionReply(std::shared_ptr<Connection> connection, size_t max_unsent)
      : connection_(connection),
        executor_(connection->executor()),
        number_(connection->number()),
        max_unsent_(max_unsent) {}
  ~ConnectionReply() override {
    if (begun_) return;
    HttpResponse response;
    response.status = 500;
    response.body = R"({"error":{"message":"no answer was made","type":"server_error","param":null,"code":null}})";
    ConnectionReply::send(std::move(response));
  }

  void send(HttpResponse response) override {
    begun_ = true;
    post([response = std::move(response)](Connection& connection) mutable { connection.send(std::move(response)); });
  }
  void begin_stream(HttpResponse head) override {
    begun_ = true;
    post([head = std::move(head)](Connection& connection) mutable { connection.begin_stream(std::move(head)); });
  }
  void write(std::string piece) override {
    const auto connection = connection_.lock();
    if (connection == nullptr) return;
    // A reader that does not keep up is let go, before its answer fills the memory.
    if (connection->unsent.fetch_add(piece.size()) + piece.size() > max_unsent_) {
      return post([](Connection& slow) { slow.close(); });
    }
    post([piece = std::move(piece)](Connection& open) mutable { open.write(std::move(piece)); });
  }
  void end_stream() override {
    post([](Connection& connection) { connection.end_stream(); });
  }
  void on_gone(std::function<void()> callback) override {
    asio::post(executor_, [weak = connection_, number = number_, callback = std::move(callback)]() mutable {
      const auto connection = weak.lock();
      if (connection == nullptr || connection->state() == Connection::State::kClosed) return callback();
      if (connection->number() == number) connection->set_on_gone(std::move(callback));
    });
  }

 private:
  template <class Action>
  void post(Action action) {
    asio::post(executor_, [weak = connection_, number = number_, action = std::move(action)]() mutable {
      const auto connection = weak.lock();
      if (connection != nullptr && connection->number() == number &&
          connection->state() == Connection::State::kAnswering) {
        action(*connection);
      }
    });
  }

  std::weak_ptr<Connection> connection_;
  asio::any_io_executor executor_;
  uint64_t number_;
  size_t max_unsent_;
  std::atomic<bool> begun_{false};
};

void Connection::handle() {
  timer_.cancel();
  auto message = parser_->release();
  parser_.reset();
  const auto to_string = [](auto text) { return std::string(text.data(), text.size()); };
  HttpRequest request{.method = to_string(message.method_string()),
                      .path = to_string(message.target()),
                      .query = {},
                      .headers = {},
                      .body = std::move(message.body())};
  if (const size_t mark = request.path.find('?'); mark != std::string::npos) {
    request.query = request.path.substr(mark + 1);
    request.path.resize(mark);
  }
  for (const auto& field : message) {
    request.headers.emplace_back(to_string(field.name_string()), to_string(field.value()));
  }
  keep_alive_ = message.keep_alive() && !shared_.draining;
  is_head_ = message.method() == http::verb::head;
  chunked_ = message.version() >= 11;
  state_ = State::kAnswering;
  ++number_;
  complete_ = writing_ = false;
  unsent = 0;
  ready_.clear();
  watch();
  const auto reply = std::make_shared<ConnectionReply>(shared_from_this(), shared_.limits.max_unsent_bytes);
  shared_.handler(std::move(request), reply);
}

void Connection::respond(const HttpResponse& response, bool streamed) {
  ready_ = fmt::format("HTTP/1.1 {} {}\r\nContent-Type: {}\r\nX-Content-Type-Options: nosniff\r\n", response.status,
                       reason_phrase(response.status), response.content_type);
  for (const auto& [name, value] : shared_.common_headers) ready_ += fmt::format("{}: {}\r\n", name, value);
  for (const auto& [name, value] : response.headers) ready_ += fmt::format("{}: {}\r\n", name, value);
  if (!streamed) ready_ += fmt::format("Content-Length: {}\r\n", response.body.size());
  if (streamed && chunked_) ready_ += "Transfer-Encoding: chunked\r\n";
  if (streamed && !chunked_) keep_alive_ = false;  // HTTP/1.0: the end of the connection ends the answer
  ready_ += keep_alive_ ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n";
}

void Connection::send(HttpResponse response) {
  respond(response, false);
  if (!is_head_) ready_ += response.body;
  complete_ = true;
  write_more();
}

void Connection::begin_stream(HttpResponse head) {
  respond(head, true);
  if (!head.body.empty()) write(std::move(head.body));
  write_more();
}

void Connection::write(std::string piece) {
  if (piece.empty() || is_head_) return;
  ready_ += chunked_ ? fmt::format("{:x}\r\n{}\r\n", piece.size(), piece) : piece;
  write_more();
}

void Connection::end_stream() {
  if (chunked_ && !is_head_) ready_ += "0\r\n\r\n";
  complete_ = true;
  write_more();
}

void Connection::write_more() {
  if (writing_ || state_ != State::kAnswering) return;
  if (ready_.empty()) {
    if (complete_) answered();
    return;
  }
  writing_ = true;
  in_flight_.clear();
  in_flight_.swap(ready_);
  unsent = 0;  // from here on: what comes while this is written
  arm(shared_.limits.write_timeout);
  asio::async_write(socket_, asio::buffer(in_flight_), [self = shared_from_this()](error_code error, size_t) {
    self->writing_ = false;
    if (self->state_ == State::kClosed) return;
    if (error) return self->close();
    self->timer_.cancel();
    self->write_more();
  });
}

void Connection::answered() {
  on_gone_ = {};
  if (in_flight_.capacity() > (64 << 10)) std::string().swap(in_flight_);  // a long answer's memory is not kept
  if (ready_.capacity() > (64 << 10)) std::string().swap(ready_);
  if (keep_alive_ && !shared_.draining) return wait_for_request(shared_.limits.idle_timeout);
  error_code ignored;
  socket_.shutdown(tcp::socket::shutdown_send, ignored);
  arm(std::chrono::milliseconds(1000));
  linger();
}

// Reads what the client still sends, briefly: closing with unread bytes would reset the connection, and the answer with
// it.
void Connection::linger() {
  socket_.async_read_some(asio::buffer(scratch_), [self = shared_from_this()](error_code error, size_t count) {
    if (self->state_ == State::kClosed) return;
    self->num_lingered_ += count;
    if (error || self->num_lingered_ > (4u << 20)) return self->close();
    self->linger();
  });
}

}  // namespace

struct HttpServer::Impl {
  asio::io_context io{1};
  tcp::acceptor acceptor{io};
  asio::steady_timer retry{io}, grace_timer{io};
  asio::signal_set signals{io};
  asio::executor_work_guard<asio::io_context::executor_type> work{io.get_executor()};
  Shared shared;
  std::function<void()> on_draining = [] {};
  std::chrono::milliseconds grace{30'000};

  void accept() {
    acceptor.async_accept([this](error_code error, tcp::socket socket) {
      if (shared.draining) return;
      if (error) {  // no file descriptors: try again when some connections are gone
        retry.expires_after(std::chrono::milliseconds(100));
        retry.async_wait([this](error_code cancelled) {
          if (!cancelled) accept();
        });
        return;
      }
      add(std::move(socket));
      accept();
    });
  }

  void add(tcp::socket socket) {
    const bool full = static_cast<int>(shared.connections.size()) >= shared.limits.max_connections && !evict();
    auto connection = std::make_shared<Connection>(std::move(socket), shared);
    connection->place = shared.connections.insert(shared.connections.end(), connection);
    ++shared.num_connections;
    if (full) return connection->refuse(503, "too many connections");
    connection->start();
  }

  // Closes the connection that has waited longest for its client.
  bool evict() {
    std::shared_ptr<Connection> oldest;
    for (const auto& connection : shared.connections) {
      const bool waits =
          connection->state() == Connection::State::kIdle || connection->state() == Connection::State::kReading;
      if (waits && (oldest == nullptr || connection->waiting_since() < oldest->waiting_since())) oldest = connection;
    }
    if (oldest != nullptr) oldest->close();
    return oldest != nullptr;
  }

  void drain(std::chrono::milliseconds time) {
    if (shared.draining) return;
    shared.draining = true;
    error_code ignored;
    acceptor.close(ignored);
    retry.cancel();
    on_draining();
    const auto all = shared.connections;
    for (const auto& connection : all) connection->drain();
    shared.on_change = [this] {
      if (shared.connections.empty()) finish();
    };
    grace_timer.expires_after(time);
    grace_timer.async_wait([this](error_code cancelled) {
      if (cancelled) return;
      const auto rest = shared.connections;
      for (const auto& connection : rest) connection->close();
      finish();
    });
    shared.on_change();
  }

  void finish() {
    work.reset();
    grace_timer.cancel();
    signals.cancel();
  }

  void wait_for_signal() {
    signals.async_wait([this](error_code error, int) {
      if (error) return;
      if (shared.draining) ::_exit(130);
      log_info("stopping: answers under way are finished, for at most {} s", grace.count() / 1000);
      wait_for_signal();  // before drain(), which takes it back when nothing is left to finish
      drain(grace);
    });
  }
};

HttpServer::HttpServer(const std::string& host, uint16_t port, const HttpLimits& limits, Handler handler)
    : impl_(std::make_unique<Impl>()) {
  impl_->shared.limits = limits;
  impl_->shared.handler = std::move(handler);
  error_code error;
  const auto address = asio::ip::make_address(host == "localhost" ? "127.0.0.1" : host, error);
  if (error) {
    throw Error(ErrorKind::kUsage, "--host", fmt::format("'{}' is no IP address", host),
                "127.0.0.1 for this machine alone, 0.0.0.0 for all of its networks");
  }
  const tcp::endpoint endpoint(address, port);
  impl_->acceptor.open(endpoint.protocol());
  impl_->acceptor.set_option(asio::socket_base::reuse_address(true));
  impl_->acceptor.bind(endpoint, error);
  if (!error) impl_->acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) {
    throw Error(ErrorKind::kIo, fmt::format("{}:{}", host, port), fmt::format("cannot listen: {}", error.message()),
                "another program may have the port; choose one with --port");
  }
}

HttpServer::~HttpServer() {
  // Handlers hold connections, and connections hold what handlers gave them: let go of both while Shared lives.
  const auto rest = impl_->shared.connections;
  impl_->shared.on_change = [] {};
  for (const auto& connection : rest) connection->close();
  impl_->shared.handler = {};
}

uint16_t HttpServer::port() const { return impl_->acceptor.local_endpoint().port(); }
int64_t HttpServer::num_connections() const { return impl_->shared.num_connections; }

void HttpServer::run(bool handle_signals) {
  if (handle_signals) {
    impl_->signals.add(SIGINT);
    impl_->signals.add(SIGTERM);
    impl_->wait_for_signal();
  }
  impl_->accept();
  impl_->io.run();
}

void HttpServer::stop(std::chrono::milliseconds grace) {
  asio::post(impl_->io, [this, grace] { impl_->drain(grace); });
}
void HttpServer::on_draining(std::function<void()> callback) { impl_->on_draining = std::move(callback); }
void HttpServer::set_common_headers(std::vector<std::pair<std::string, std::string>> headers) {
  impl_->shared.common_headers = std::move(headers);
}
void HttpServer::set_grace(std::chrono::milliseconds grace) { impl_->grace = grace; }

std::string_view HttpRequest::header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (boost::beast::iequals(boost::beast::string_view(key.data(), key.size()),
                              boost::beast::string_view(name.data(), name.size()))) {
      return value;
    }
  }
  return {};
}

std::string_view reason_phrase(int status) {
  const auto text = http::obsolete_reason(http::int_to_status(static_cast<unsigned>(status)));
  return {text.data(), text.size()};
}

}  // namespace potstill::server
