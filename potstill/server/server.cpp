#include "potstill/server/server.h"

#include <fmt/format.h>

#include <array>
#include <atomic>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <ctime>
#include <random>
#include <utility>

#include "potstill/base/error.h"
#include "potstill/base/log.h"
#include "potstill/formats/strict_json.h"
#include "potstill/server/api_error.h"
#include "potstill/server/completion.h"
#include "potstill/server/metrics.h"
#include "potstill/server/openai_request.h"
#include "potstill/server/page.h"

namespace potstill::server {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

constexpr int kMaxJsonDepth = 64;

std::string random_id(const char* prefix) {
  static thread_local std::mt19937_64 random{std::random_device{}()};
  return fmt::format("{}-{:016x}", prefix, random());
}

HttpResponse json_response(const Json& json) {
  HttpResponse response;
  response.body = dump(json);
  return response;
}

// The part of "host:port" before the port.
std::string_view host_of(std::string_view host) {
  if (!host.empty() && host[0] == '[') return host.substr(0, host.find(']') + 1);
  return host.substr(0, host.find(':'));
}

Json parse_body(const std::string& body) {
  if (!is_utf8(body)) throw ApiError(400, "the body is not UTF-8");
  try {
    return parse_strict_ordered_json(body, "the body", kMaxJsonDepth);
  } catch (const Error& error) {
    const std::string message = error.what();
    throw ApiError(400, message.substr(0, message.find('\n')));
  }
}

}  // namespace

bool equal_in_constant_time(std::string_view a, std::string_view b) {
  volatile uint8_t difference = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < a.size(); ++i) {
    const auto other = b.empty() ? uint8_t{0} : static_cast<uint8_t>(b[i % b.size()]);
    difference = static_cast<uint8_t>(difference | (static_cast<uint8_t>(a[i]) ^ other));
  }
  return difference == 0;
}

struct Server::Impl {
  Impl(TextEngine& text_engine, const ServerOptions& server_options)
      : engine(text_engine),
        options(server_options),
        http(options.host, options.port, options.http, [this](HttpRequest request, std::shared_ptr<Reply> reply) {
          handle(std::move(request), std::move(reply));
        }) {
    if (options.model_name.empty()) options.model_name = engine.name();
    http.set_grace(options.grace);
    http.on_draining([this] { draining = true; });
    if (options.cors_origin.empty()) return;
    http.set_common_headers({{"Access-Control-Allow-Origin", options.cors_origin},
                             {"Access-Control-Allow-Headers", "authorization, content-type"},
                             {"Vary", "Origin"}});
  }

  TextEngine& engine;
  ServerOptions options;
  // Shared with the answers, of which one may still be told of its end when the server is gone.
  std::shared_ptr<Metrics> metrics = std::make_shared<Metrics>();
  std::atomic<bool> draining{false};
  int64_t created = static_cast<int64_t>(std::time(nullptr));
  HttpServer http;
  // Reading a body of a megabyte takes tens of milliseconds: not on the thread that serves everybody's connections.
  boost::asio::thread_pool readers{1};

  void handle(HttpRequest request, std::shared_ptr<Reply> reply);
  HttpResponse route(const HttpRequest& request, bool& is_completion);
  void check_origin(const HttpRequest& request) const;
  void check_key(const HttpRequest& request) const;
  void complete(const HttpRequest& request, std::shared_ptr<Reply> reply, Clock::time_point arrived);
  HttpResponse models(std::string_view id) const;
  HttpResponse health() const;
  void answer(const std::shared_ptr<Reply>& reply, HttpResponse response, const char* endpoint);
};

// A page of another origin in the user's own browser must not talk to a server on loopback: it has no key, but it is
// already on this machine. Browsers tell the origin; a name that an attacker's DNS points at us shows in Host.
void Server::Impl::check_origin(const HttpRequest& request) const {
  const std::string_view host = request.header("host"), origin = request.header("origin");
  const bool loopback = options.host == "127.0.0.1" || options.host == "localhost" || options.host == "::1";
  if (loopback && !host.empty()) {
    const std::string_view name = host_of(host);
    if (name != "127.0.0.1" && name != "localhost" && name != "[::1]") {
      throw ApiError(403, "this server answers on loopback alone, and the Host header names another machine", "",
                     "host");
    }
  }
  if (origin.empty() || origin == fmt::format("http://{}", host) || origin == fmt::format("https://{}", host)) return;
  if (!options.cors_origin.empty() && (options.cors_origin == "*" || options.cors_origin == origin)) return;
  throw ApiError(403, "pages of other origins may not call this server; its owner can allow one with --cors", "",
                 "origin");
}

void Server::Impl::check_key(const HttpRequest& request) const {
  if (options.api_key.empty()) return;
  std::string_view given = request.header("authorization");
  constexpr std::string_view kBearer = "Bearer ";
  given = given.substr(0, kBearer.size()) == kBearer ? given.substr(kBearer.size()) : std::string_view();
  if (!equal_in_constant_time(given, options.api_key)) {
    throw ApiError(401, "the API key is missing or wrong: Authorization: Bearer KEY", "", "invalid_api_key");
  }
}

void Server::Impl::answer(const std::shared_ptr<Reply>& reply, HttpResponse response, const char* endpoint) {
  metrics->count_request(endpoint, response.status);
  if (response.status == 503) response.headers.emplace_back("Retry-After", "1");
  if (response.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  reply->send(std::move(response));
}

void Server::Impl::handle(HttpRequest request, std::shared_ptr<Reply> reply) {
  const auto arrived = Clock::now();
  try {
    bool is_completion = false;
    HttpResponse response = route(request, is_completion);
    if (!is_completion) return answer(reply, std::move(response), "other");
  } catch (const ApiError& error) {
    return answer(reply, error_response(error), "other");
  }
  boost::asio::post(readers, [this, arrived, request = std::move(request), reply = std::move(reply)] {
    const char* endpoint = request.path == "/v1/completions" ? "completions" : "chat";
    try {
      complete(request, reply, arrived);
    } catch (const ApiError& error) {
      answer(reply, error_response(error), endpoint);
    } catch (const Error& error) {
      answer(reply, error_response(api_error(error)), endpoint);
    } catch (const std::exception& error) {
      log_warning("a request failed: {}", error.what());
      answer(reply, error_response(ApiError(500, "the server failed; its log says more")), endpoint);
    }
  });
}

// Everything but completions is answered at once.
HttpResponse Server::Impl::route(const HttpRequest& request, bool& is_completion) {
  check_origin(request);
  if (request.method == "OPTIONS") {
    HttpResponse response;
    response.status = 204;
    return response;
  }
  const bool is_get = request.method == "GET" || request.method == "HEAD";
  if (const auto page = page_file(request.path); page && is_get) return *page;
  if (request.path == "/health" && is_get) return health();
  check_key(request);
  const bool posted = request.path == "/v1/chat/completions" || request.path == "/v1/completions";
  if (posted && request.method == "POST") {
    const std::string_view type = request.header("content-type");
    // A browser sends other types without asking us first.
    if (type.substr(0, type.find(';')) != "application/json") {
      throw ApiError(415, "the Content-Type must be application/json");
    }
    is_completion = true;
    return {};
  }
  if (request.path == "/metrics" && is_get) {
    HttpResponse response;
    response.content_type = "text/plain; version=0.0.4; charset=utf-8";
    response.body = metrics->text(engine.stats(), http.num_connections());
    return response;
  }
  constexpr std::string_view kModels = "/v1/models";
  if (is_get && request.path == kModels) return models("");
  if (is_get && request.path.rfind(std::string(kModels) + "/", 0) == 0) {
    return models(std::string_view(request.path).substr(kModels.size() + 1));
  }
  if (posted || request.path == kModels || request.path == "/health" || request.path == "/metrics") {
    throw ApiError(405, "this path takes another method");
  }
  throw ApiError(404, "there is nothing here; the API is under /v1, the chat page at /");
}

HttpResponse Server::Impl::health() const {
  HttpResponse response = json_response({{"status", draining ? "stopping" : "ok"}});
  if (draining) response.status = 503;
  return response;
}

HttpResponse Server::Impl::models(std::string_view id) const {
  const Json model{{"id", options.model_name},
                   {"object", "model"},
                   {"created", created},
                   {"owned_by", "potstill"},
                   {"max_model_len", engine.context_length()}};
  if (id.empty()) return json_response({{"object", "list"}, {"data", Json::array({model})}});
  if (id != options.model_name) throw ApiError(404, fmt::format("the model here is '{}'", options.model_name));
  return json_response(model);
}

void Server::Impl::complete(const HttpRequest& request, std::shared_ptr<Reply> reply, Clock::time_point arrived) {
  if (draining) throw ApiError(503, "the server is stopping");
  const bool is_chat = request.path == "/v1/chat/completions";
  const Json body = parse_body(request.body);
  CompletionRequest read = is_chat ? read_chat_request(body) : read_completion_request(body);
  if (!read.model.empty() && read.model != options.model_name) {
    throw ApiError(404, fmt::format("the model here is '{}'", options.model_name), "model", "model_not_found");
  }
  const AnswerHead head{.is_chat = is_chat,
                        .id = random_id(is_chat ? "chatcmpl" : "cmpl"),
                        .model = options.model_name,
                        .created = static_cast<int64_t>(std::time(nullptr))};
  const auto completion =
      std::make_shared<Completion>(engine, metrics, std::move(read), head, std::move(reply), arrived);
  completion->start(options.max_tokens, arrived + options.request_timeout);
}

Server::Server(TextEngine& engine, const ServerOptions& options) : impl_(std::make_unique<Impl>(engine, options)) {}

Server::~Server() { impl_->readers.join(); }

uint16_t Server::port() const { return impl_->http.port(); }
void Server::run(bool handle_signals) { impl_->http.run(handle_signals); }
void Server::stop(std::chrono::milliseconds grace) { impl_->http.stop(grace); }

}  // namespace potstill::server
