#include "potstill/server/server.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "tests/server/scripted_engine.h"

#include "potstill/base/error.h"

namespace potstill::server {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;
using testing::HasSubstr;

// A plain TCP client, so that a test can send what no HTTP library would.
class Client {
 public:
  explicit Client(uint16_t port, int receive_buffer = 0) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    if (receive_buffer > 0) ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    const timeval patience{20, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  ~Client() { hang_up(); }
  void hang_up() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }
  // Until the other side closes, or `enough` is in what came.
  std::string receive(std::string_view enough = {}) {
    std::string all;
    char buffer[4096];
    while (enough.empty() || all.find(enough) == std::string::npos) {
      const ssize_t got = ::recv(fd_, buffer, sizeof buffer, 0);
      if (got <= 0) break;
      all.append(buffer, static_cast<size_t>(got));
    }
    return all;
  }

 private:
  int fd_;
};

std::string post(const std::string& path, const std::string& body, const std::string& headers = "") {
  return fmt::format(
      "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n"
      "Connection: close\r\n{}\r\n{}",
      path, body.size(), headers, body);
}
std::string get(const std::string& path, const std::string& headers = "") {
  return fmt::format("GET {} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{}\r\n", path, headers);
}

struct Response {
  int status = 0;
  std::string head, body;
  json parsed() const { return json::parse(body); }
};

Response parse(const std::string& bytes) {
  Response response;
  const size_t end = bytes.find("\r\n\r\n");
  if (bytes.rfind("HTTP/1.1 ", 0) != 0 || end == std::string::npos) return response;
  response.status = std::stoi(bytes.substr(9, 3));
  response.head = bytes.substr(0, end);
  response.body = bytes.substr(end + 4);
  return response;
}

class ServerTest : public testing::Test {
 protected:
  void SetUp() override {
    ::signal(SIGPIPE, SIG_IGN);
    options.port = 0;
    options.model_name = "tiny";
  }
  void start() {
    server = std::make_unique<Server>(engine, options);
    thread = std::thread([this] { server->run(false); });
  }
  void TearDown() override {
    if (!server) return;
    server->stop(milliseconds(2000));
    thread.join();
    server.reset();
  }
  Response ask(const std::string& request) {
    Client client(server->port());
    client.send(request);
    return parse(client.receive());
  }

  ScriptedEngine engine;
  ServerOptions options;
  std::unique_ptr<Server> server;
  std::thread thread;
};

const std::string kChat = R"({"messages": [{"role": "user", "content": "hi"}]})";

TEST_F(ServerTest, AnswersAChat) {
  engine.answer = [](const EngineRequest&) { return "hello you"; };
  start();
  const auto response = ask(post("/v1/chat/completions", kChat));
  ASSERT_EQ(response.status, 200) << response.body;
  const json answer = response.parsed();
  EXPECT_EQ(answer["object"], "chat.completion");
  EXPECT_EQ(answer["choices"][0]["message"]["content"], "hello you");
  EXPECT_EQ(answer["choices"][0]["message"]["role"], "assistant");
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(answer["usage"]["completion_tokens"], 9);
  EXPECT_EQ(engine.tokenizer().decode(engine.last.prompt), "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
}

TEST_F(ServerTest, StreamsWhatItWouldHaveAnsweredWhole) {
  engine.answer = [](const EngineRequest&) { return "one two"; };
  start();
  Client client(server->port());
  client.send(post("/v1/chat/completions", R"({"messages": [{"role": "user", "content": "hi"}], "stream": true, "n": 2,
                                               "stream_options": {"include_usage": true}, "max_tokens": 5})"));
  const auto response = parse(client.receive());
  ASSERT_EQ(response.status, 200);
  EXPECT_THAT(response.head, HasSubstr("text/event-stream"));
  std::map<int, std::string> texts, reasons;
  json usage;
  for (size_t at = 0; (at = response.body.find("data: {", at)) != std::string::npos; ++at) {
    const json event = json::parse(response.body.substr(at + 6, response.body.find("\n\n", at) - at - 6));
    if (event.contains("usage")) usage = event["usage"];
    for (const auto& choice : event["choices"]) {
      texts[choice["index"]] += choice["delta"].value("content", "");
      if (!choice["finish_reason"].is_null()) reasons[choice["index"]] = choice["finish_reason"];
    }
  }
  EXPECT_EQ(texts, (std::map<int, std::string>{{0, "one t"}, {1, "one t"}}));
  EXPECT_EQ(reasons, (std::map<int, std::string>{{0, "length"}, {1, "length"}}));
  EXPECT_EQ(usage["completion_tokens"], 10);
  EXPECT_THAT(response.body, HasSubstr("data: [DONE]\n\n"));
}

TEST_F(ServerTest, CompletesPromptsWithEchoAndLogProbs) {
  engine.answer = [](const EngineRequest&) { return "xyz"; };
  start();
  const auto response =
      ask(post("/v1/completions", R"({"prompt": ["ab", [66, 67]], "max_tokens": 1, "echo": true, "logprobs": 0})"));
  ASSERT_EQ(response.status, 200) << response.body;
  const json choices = response.parsed()["choices"];
  ASSERT_EQ(choices.size(), 2u);
  EXPECT_EQ(choices[0]["text"], "abx");
  EXPECT_EQ(choices[0]["logprobs"]["tokens"], (json{"a", "b", "x"}));
  EXPECT_EQ(choices[0]["logprobs"]["token_logprobs"], (json{-1.0, -1.0, -0.5}));
  EXPECT_EQ(choices[0]["logprobs"]["text_offset"], (json{0, 1, 2}));
  EXPECT_EQ(choices[1]["text"], "bcx");
  EXPECT_TRUE(engine.last.prompt_log_probs);
  EXPECT_FALSE(engine.last.reuse_answers);
}

TEST_F(ServerTest, TakesAnswersApartIntoToolCalls) {
  engine.answer = [](const EngineRequest&) {
    return "Let me see.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Bern\"}}\n</tool_call>";
  };
  start();
  const std::string body =
      R"({"messages": [{"role": "user", "content": "weather?"}], "tools": [{"type": "function", "function":
      {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}])";
  const json whole = ask(post("/v1/chat/completions", body + "}")).parsed();
  EXPECT_EQ(whole["choices"][0]["finish_reason"], "tool_calls");
  EXPECT_EQ(whole["choices"][0]["message"]["content"], "Let me see.\n");
  EXPECT_EQ(whole["choices"][0]["message"]["tool_calls"][0]["function"]["name"], "weather");
  EXPECT_EQ(json::parse(std::string(whole["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"])),
            (json{{"city", "Bern"}}));
  EXPECT_THAT(engine.tokenizer().decode(engine.last.prompt), HasSubstr("<tools>"));
  EXPECT_EQ(engine.last.grammar, nullptr);
  const auto streamed = ask(post("/v1/chat/completions", body + R"(, "stream": true, "tool_choice": "required"})"));
  EXPECT_THAT(streamed.body, HasSubstr(R"("tool_calls":[{"index":0,"id":"call_)"));
  EXPECT_THAT(streamed.body, testing::Not(HasSubstr("<tool_call>")));
  EXPECT_NE(engine.last.grammar, nullptr);
}

TEST_F(ServerTest, NamesTheFieldThatIsWrong) {
  start();
  const auto refuses = [&](const std::string& body, const std::string& param, const std::string& word,
                           const char* path = "/v1/chat/completions") {
    const auto response = ask(post(path, body));
    EXPECT_EQ(response.status, 400) << body;
    const json error = json::parse(response.body, nullptr, false).value("error", json::object());
    EXPECT_EQ(error.value("param", json()).is_string() ? std::string(error["param"]) : "", param) << body;
    EXPECT_THAT(error.value("message", ""), HasSubstr(word)) << body;
  };
  refuses("", "", "JSON");
  refuses("{", "", "JSON");
  refuses("[]", "", "object");
  refuses("{\"a\": \"\xff\"}", "", "UTF-8");
  refuses(std::string(1000, '['), "", "nested deeper");
  refuses(R"({"n": 1, "n": 2})", "", "twice");
  refuses(R"({"messages": []})", "messages", "at least one");
  refuses(R"({"messages": [{"role": "robot", "content": "x"}]})", "messages[0].role", "must be");
  refuses(R"({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})", "messages[0].content[0].type",
          "text alone");
  const std::string begin = R"({"messages": [{"role": "user", "content": "x"}], )";
  refuses(begin + R"("temperature": 3})", "temperature", "[0, 2]");
  refuses(begin + R"("temperature": "1"})", "temperature", "number");
  refuses(begin + R"("n": 1.5})", "n", "integer");
  refuses(begin + R"("max_tokens": -1})", "max_tokens", "integer");
  refuses(begin + R"("max_tokens": 9000000})", "messages", "context");
  refuses(begin + R"("temprature": 1})", "temprature", "did you mean 'temperature'");
  refuses(begin + R"("logit_bias": {"x": 1}})", "logit_bias", "no token id");
  refuses(begin + R"("response_format": {"type": "xml"}})", "response_format.type", "json_object");
  refuses(
      begin +
          R"("response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "string", "pattern": "x"}}}})",
      "", "pattern");
  refuses(begin + R"("tool_choice": "required"})", "tool_choice", "no tools");
  refuses(R"({"prompt": ""})", "prompt", "no tokens", "/v1/completions");
  refuses(R"({"prompt": [1, "a"]})", "prompt", "no token id", "/v1/completions");
  refuses(R"({"prompt": "a", "best_of": 4})", "best_of", "equal to n", "/v1/completions");
  EXPECT_EQ(engine.num_ended, 0);
  EXPECT_EQ(
      ask(post("/v1/chat/completions", R"({"model": "gpt-5", "messages": [{"role": "user", "content": "x"}]})")).status,
      404);
}

TEST_F(ServerTest, ServesModelsHealthMetricsAndThePageAndNothingElse) {
  start();
  EXPECT_EQ(ask(get("/v1/models")).parsed()["data"][0]["id"], "tiny");
  EXPECT_EQ(ask(get("/v1/models/tiny")).status, 200);
  EXPECT_EQ(ask(get("/v1/models/other")).status, 404);
  EXPECT_EQ(ask(get("/health")).parsed()["status"], "ok");
  EXPECT_THAT(ask(get("/")).body, HasSubstr("<!doctype html>"));
  EXPECT_THAT(ask(get("/")).head, HasSubstr("Content-Security-Policy: default-src 'none'"));
  EXPECT_EQ(ask(get("/chat.js")).status, 200);
  EXPECT_EQ(ask(get("/../etc/passwd")).status, 404);
  EXPECT_EQ(ask(get("/v1/chat/completions")).status, 405);
  EXPECT_EQ(ask(post("/v1/nothing", "{}")).status, 404);
  ask(post("/v1/chat/completions", kChat));
  // An answer is counted once its last byte is out, which its reader may have before the counter.
  std::string metrics;
  for (int i = 0; i < 200 && metrics.find("endpoint=\"chat\"") == std::string::npos; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(i == 0 ? 0 : 10));
    metrics = ask(get("/metrics")).body;
  }
  EXPECT_THAT(metrics, HasSubstr("potstill_requests_total{endpoint=\"chat\",status=\"200\"} 1"));
  EXPECT_THAT(metrics, HasSubstr("potstill_request_seconds_bucket{le=\"+Inf\"} 1"));
}

TEST_F(ServerTest, AsksForItsKey) {
  options.api_key = "sesame";
  start();
  EXPECT_EQ(ask(post("/v1/chat/completions", kChat)).status, 401);
  EXPECT_EQ(ask(post("/v1/chat/completions", kChat, "Authorization: Bearer sesam\r\n")).status, 401);
  EXPECT_EQ(ask(post("/v1/chat/completions", kChat, "Authorization: sesame\r\n")).status, 401);
  EXPECT_EQ(ask(post("/v1/chat/completions", kChat, "Authorization: Bearer sesame\r\n")).status, 200);
  EXPECT_EQ(ask(get("/metrics")).status, 401);
  EXPECT_EQ(ask(get("/v1/models")).status, 401);
  EXPECT_EQ(ask(get("/health")).status, 200);
  EXPECT_TRUE(equal_in_constant_time("abc", "abc"));
  EXPECT_FALSE(equal_in_constant_time("abcabc", "abc"));
  EXPECT_FALSE(equal_in_constant_time("", "abc"));
}

TEST_F(ServerTest, LetsNoForeignPageIn) {
  start();
  EXPECT_EQ(ask(get("/v1/models", "Origin: http://evil.example\r\n")).status, 403);
  EXPECT_EQ(ask(get("/v1/models", "Origin: http://127.0.0.1\r\n")).status, 200);
  EXPECT_EQ(ask("GET /v1/models HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n").status, 403);
  EXPECT_EQ(ask("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: "
                "2\r\nConnection: close\r\n\r\n{}")
                .status,
            415);
  EXPECT_THAT(ask(get("/v1/models")).head, testing::Not(HasSubstr("Access-Control")));
}

TEST_F(ServerTest, LetsTheOriginInThatItsOwnerNamed) {
  options.cors_origin = "http://app.example";
  start();
  const auto response = ask(get("/v1/models", "Origin: http://app.example\r\n"));
  EXPECT_EQ(response.status, 200);
  EXPECT_THAT(response.head, HasSubstr("Access-Control-Allow-Origin: http://app.example"));
  EXPECT_EQ(ask(get("/v1/models", "Origin: http://evil.example\r\n")).status, 403);
}

TEST_F(ServerTest, RefusesWhatIsNotHttpOrTooLarge) {
  options.http.max_body_bytes = 1000;
  start();
  EXPECT_EQ(ask("hello\r\n\r\n").status, 400);
  EXPECT_EQ(ask(std::string(3, '\0') + "\r\n\r\n").status, 400);
  EXPECT_EQ(ask(post("/v1/chat/completions", std::string(1001, ' '))).status, 413);
  EXPECT_EQ(ask("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n").status, 400);
  EXPECT_EQ(ask("GET / HTTP/1.1\r\nHost: localhost\r\nX: " + std::string(20000, 'x') + "\r\n\r\n").status, 431);
  EXPECT_EQ(ask("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" +
                std::string("7d0\r\n") + std::string(2000, ' '))
                .status,
            413);
  EXPECT_EQ(ask(get("/health")).status, 200);
}

TEST_F(ServerTest, KeepsAConnectionAndAnswersPipelinedRequestsInOrder) {
  start();
  Client client(server->port());
  const std::string keep = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
  client.send(keep);
  EXPECT_THAT(client.receive("\"ok\"}"), HasSubstr("Connection: keep-alive"));
  client.send(keep + "GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n" + get("/nothing"));
  const std::string rest = client.receive();
  const size_t health = rest.find("\"ok\""), models = rest.find("\"tiny\""), nothing = rest.find("404");
  EXPECT_LT(health, models);
  EXPECT_LT(models, nothing);
  EXPECT_NE(nothing, std::string::npos);
}

TEST_F(ServerTest, ClosesThoseWhoDoNotFinishTheirRequest) {
  options.http.header_timeout = milliseconds(150);
  options.http.body_timeout = milliseconds(150);
  start();
  Client silent(server->port()), half(server->port()), slow_body(server->port());
  half.send("GET /health HT");
  slow_body.send("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{");
  EXPECT_EQ(silent.receive(), "");
  EXPECT_EQ(half.receive(), "");
  EXPECT_EQ(slow_body.receive(), "");
  // A byte now and then does not extend the time.
  Client trickle(server->port());
  int sent = 0;
  for (; sent < 200 && trickle.send("G"); ++sent) std::this_thread::sleep_for(milliseconds(20));
  EXPECT_LT(sent, 100);
}

TEST_F(ServerTest, AFullHouseClosesTheIdlestForANewcomer) {
  options.http.max_connections = 4;
  start();
  std::vector<std::unique_ptr<Client>> idle;
  for (int i = 0; i < 4; ++i) {
    idle.push_back(std::make_unique<Client>(server->port()));
    idle.back()->send("GET /hea");
  }
  EXPECT_EQ(ask(get("/health")).status, 200);
  EXPECT_EQ(idle[0]->receive(), "") << "the first was idle longest";
}

TEST_F(ServerTest, CancelsTheAnswerOfAClientThatHangsUp) {
  engine.answer = [](const EngineRequest&) { return std::string(100000, 'x'); };
  engine.pause = std::chrono::microseconds(200);
  start();
  for (const char* stream : {"true", "false"}) {
    const int before = engine.num_ended;
    Client client(server->port());
    client.send(
        post("/v1/chat/completions",
             fmt::format(R"({{"messages": [{{"role": "user", "content": "x"}}], "max_tokens": 100000, "stream": {}}})",
                         stream)));
    if (stream[0] == 't') client.receive("data: ");
    std::this_thread::sleep_for(milliseconds(50));
    client.hang_up();
    for (int i = 0; i < 400 && engine.num_ended == before; ++i) std::this_thread::sleep_for(milliseconds(10));
    EXPECT_EQ(engine.num_ended, before + 1) << stream;
  }
  EXPECT_EQ(engine.num_cancelled, 2);
}

// A reader of a stream that takes nothing is let go; another one is served meanwhile.
TEST_F(ServerTest, ASlowReaderHoldsNobodyAndIsLetGo) {
  engine.answer = [](const EngineRequest& request) {
    return std::string(static_cast<size_t>(request.max_new_tokens), 'x');
  };
  options.http.max_unsent_bytes = 64 << 10;
  options.http.write_timeout = milliseconds(300);
  start();
  Client slow(server->port(), 4096);
  slow.send(post("/v1/chat/completions",
                 R"({"messages": [{"role": "user", "content": "x"}], "max_tokens": 200000, "stream": true})"));
  for (int i = 0; i < 1000 && engine.num_cancelled == 0; ++i) std::this_thread::sleep_for(milliseconds(10));
  EXPECT_EQ(engine.num_cancelled, 1);
  EXPECT_EQ(ask(get("/health")).status, 200);
}

TEST_F(ServerTest, AFullQueueSaysWhenToComeAgain) {
  engine.room = 0;
  start();
  const auto response = ask(post("/v1/chat/completions", kChat));
  EXPECT_EQ(response.status, 503);
  EXPECT_THAT(response.head, HasSubstr("Retry-After:"));
}

TEST_F(ServerTest, FinishesStreamsWhenItIsStopped) {
  engine.answer = [](const EngineRequest&) { return std::string(100, 'x'); };
  engine.pause = std::chrono::milliseconds(3);
  start();
  const uint16_t port = server->port();
  Client client(port), idle(port);
  client.send(post("/v1/chat/completions", R"({"messages": [{"role": "user", "content": "x"}], "stream": true})"));
  std::string all = client.receive("data: ");
  server->stop(milliseconds(5000));
  EXPECT_EQ(idle.receive(), "") << "who waits is let go at once";
  all += client.receive();
  EXPECT_THAT(all, HasSubstr("[DONE]"));
  thread.join();
  server.reset();
}

TEST_F(ServerTest, SaysWhyItCannotListen) {
  options.host = "not an address";
  EXPECT_THROW(Server(engine, options), Error);
  options.host = "127.0.0.1";
  start();
  options.port = server->port();
  EXPECT_THROW(Server(engine, options), Error);
}

}  // namespace
}  // namespace potstill::server
