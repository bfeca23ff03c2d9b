#include "potstill/lm/openai_model.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <ctime>

#include "tests/lm/mock_endpoint.h"

#include "potstill/base/error.h"

namespace potstill {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using Request = MockEndpoint::Request;

OpenAiOptions options_of(const MockEndpoint& endpoint) {
  OpenAiOptions options;
  options.http.url = endpoint.url();
  options.http.first_pause = std::chrono::milliseconds(5);
  options.model = "m";
  return options;
}

// Says what it was asked.
std::string echo(const Request& request) {
  const json asked = json::parse(request.body);
  const std::string text =
      asked.contains("prompt") ? std::string(asked["prompt"]) : std::string(asked["messages"].back()["content"]);
  json choice = asked.contains("prompt") ? json{{"text", "to " + text}}
                                         : json{{"message", {{"role", "assistant"}, {"content", "to " + text}}}};
  choice["finish_reason"] = "stop";
  return http_response(
      200, json{{"choices", {choice}}, {"usage", {{"prompt_tokens", 10}, {"completion_tokens", 5}}}}.dump());
}

std::vector<GenerateRequest> chats(int count) {
  std::vector<GenerateRequest> requests(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) requests[static_cast<size_t>(i)].messages = {{"user", fmt::format("{}", i)}};
  return requests;
}

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(OpenAiModel, AsksChatsAndPromptsAndGivesAnswersInOrder) {
  MockEndpoint endpoint([](const Request& request) {
    const json asked = json::parse(request.body);
    EXPECT_EQ(request.path, asked.contains("prompt") ? "/v1/completions" : "/v1/chat/completions");
    EXPECT_EQ(asked["model"], "m");
    EXPECT_EQ(asked["max_tokens"], 7);
    EXPECT_EQ(asked["stop"], (json{"\n"}));
    return echo(request);
  });
  OpenAiModel model(options_of(endpoint));
  auto requests = chats(40);
  requests[7].messages.clear();
  requests[7].prompt = "raw";
  for (auto& request : requests) request.max_new_tokens = 7, request.stop = {"\n"};
  std::set<size_t> done;
  const auto results = model.generate(requests, [&](size_t i, const GenerateResult& result) {
    EXPECT_TRUE(done.insert(i).second);
    EXPECT_EQ(result.tokens.size(), 5u);
  });
  EXPECT_EQ(done.size(), 40u);
  for (size_t i = 0; i < results.size(); ++i) EXPECT_EQ(results[i].text, i == 7 ? "to raw" : fmt::format("to {}", i));
  EXPECT_EQ(model.usage().prompt_tokens, 400);
  EXPECT_LE(endpoint.most_at_once, 8);
  EXPECT_GT(endpoint.most_at_once, 1);
}

// Every way of misbehaving, each now and then: all answers come, each once.
TEST(OpenAiModel, OutlastsAnEndpointThatMisbehavesInEveryWay) {
  MockEndpoint endpoint([](const Request& request) -> std::string {
    switch (request.number % 11) {
      case 0:
        return http_response(429, R"({"error":{"message":"slow down"}})", "Retry-After: 0\r\n");
      case 1:
        return http_response(500, "oops");
      case 2:
        return http_response(503, "", "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n");
      case 3:
        return "";  // hangs up
      case 4:
        return echo(request).substr(0, 150);  // cut off
      case 5:
        return http_response(200, R"({"choices": [{"message": {"cont)");  // cut off, with the right length
      case 6:
        return http_response(200, R"({"choices": []})");
      case 7:
        return request.number < 40 ? MockEndpoint::kSilence : echo(request);
      case 8:
        return "not HTTP at all\r\n\r\n";
      default:
        return echo(request);
    }
  });
  auto options = options_of(endpoint);
  options.http.timeout = std::chrono::milliseconds(300);
  options.http.max_tries = 60;
  OpenAiModel model(options);
  int done = 0;
  const auto results = model.generate(chats(30), [&](size_t, const GenerateResult&) { ++done; });
  for (size_t i = 0; i < results.size(); ++i) EXPECT_EQ(results[i].text, fmt::format("to {}", i));
  EXPECT_EQ(done, 30);
  EXPECT_GT(model.num_retries(), 30);
}

TEST(OpenAiModel, WaitsAsLongAsABusyEndpointAsks) {
  std::chrono::steady_clock::time_point refused, asked_again;
  MockEndpoint endpoint([&](const Request& request) {
    if (request.number == 0) {
      refused = std::chrono::steady_clock::now();
      return http_response(429, "{}", "Retry-After: 1\r\n");
    }
    asked_again = std::chrono::steady_clock::now();
    return echo(request);
  });
  OpenAiModel model(options_of(endpoint));
  model.generate(chats(1));
  EXPECT_GE(asked_again - refused, std::chrono::milliseconds(990));
}

TEST(OpenAiModel, ReadsRetryAfterAsADateAndInMilliseconds) {
  for (const bool as_date : {true, false}) {
    std::chrono::steady_clock::time_point refused, asked_again;
    MockEndpoint endpoint([&](const Request& request) {
      if (request.number > 0) {
        asked_again = std::chrono::steady_clock::now();
        return echo(request);
      }
      refused = std::chrono::steady_clock::now();
      const std::time_t then = std::time(nullptr) + 2;
      char date[64];
      std::strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", std::gmtime(&then));
      return http_response(503, "", as_date ? fmt::format("Retry-After: {}\r\n", date) : "retry-after-ms: 300\r\n");
    });
    OpenAiModel model(options_of(endpoint));
    model.generate(chats(1));
    EXPECT_GE(asked_again - refused, std::chrono::milliseconds(as_date ? 900 : 290)) << as_date;
  }
}

TEST(OpenAiModel, AsksForASchemaAndGoesOnWithWhatTheEndpointKnows) {
  const json schema{{"type", "object"}, {"properties", {{"a", {{"type", "string"}}}}}};
  for (const int known : {2, 1, 0}) {  // schemas, any object, nothing
    std::atomic<int> with_schema{0}, with_object{0}, without{0};
    MockEndpoint endpoint([&](const Request& request) {
      const json asked = json::parse(request.body);
      const std::string type = asked.contains("response_format") ? std::string(asked["response_format"]["type"]) : "";
      if (type == "json_schema") {
        EXPECT_EQ(asked["response_format"]["json_schema"]["schema"], schema);
        EXPECT_EQ(asked["response_format"]["json_schema"]["strict"], true);
        if (known < 2) return http_response(400, R"({"error":{"message":"'json_schema' is not supported"}})");
        ++with_schema;
      } else if (type == "json_object") {
        if (known < 1) return http_response(400, R"({"error":{"message":"unknown field: response_format"}})");
        ++with_object;
      } else {
        ++without;
      }
      return echo(request);
    });
    OpenAiModel model(options_of(endpoint));
    auto requests = chats(6);
    for (auto& request : requests) request.json_schema = schema.dump();
    model.generate(requests);
    EXPECT_EQ(with_schema, known == 2 ? 6 : 0);
    EXPECT_EQ(with_object, known == 1 ? 6 : 0);
    EXPECT_EQ(without, known == 0 ? 6 : 0);
  }
}

TEST(OpenAiModel, GivesUpAfterItsTries) {
  MockEndpoint endpoint([](const Request&) { return http_response(500, "oops"); });
  auto options = options_of(endpoint);
  options.http.max_tries = 3;
  OpenAiModel model(options);
  EXPECT_THAT(error_of([&] { model.generate(chats(1)); }), HasSubstr("status 500 after 3 tries"));
  EXPECT_EQ(endpoint.num_requests, 3);
}

TEST(OpenAiModel, NeverShowsItsKeyAndSendsItNowhereElse) {
  std::atomic<int> with_key{0};
  MockEndpoint other([](const Request& request) { return echo(request); });
  MockEndpoint endpoint([&](const Request& request) {
    with_key += request.head.find("Authorization: Bearer sk-secret") != std::string::npos;
    if (request.number == 0) return http_response(401, R"({"error":{"message":"bad key sk-secret"}})");
    return http_response(307, "", "Location: " + other.url() + "/chat/completions\r\n");
  });
  auto options = options_of(endpoint);
  options.http.key = "sk-secret";
  OpenAiModel model(options);
  const auto refused = error_of([&] { model.generate(chats(1)); });
  EXPECT_THAT(refused, HasSubstr("answered 401"));
  EXPECT_THAT(refused, testing::Not(HasSubstr("sk-secret")));
  EXPECT_THAT(error_of([&] { model.generate(chats(1)); }), HasSubstr("answered 307"));
  EXPECT_EQ(with_key, 2);
  EXPECT_EQ(other.num_requests, 0);
  options.http.key = "a\r\nb";
  EXPECT_THAT(error_of([&] { OpenAiModel bad(options); }), testing::Not(HasSubstr("a\r\nb")));
  options = options_of(endpoint);
  options.http.url = "http://user:hunter2@127.0.0.1/v1";
  EXPECT_THAT(error_of([&] { OpenAiModel bad(options); }), testing::Not(HasSubstr("hunter2")));
}

TEST(OpenAiModel, GoesOnWithoutAFieldThatTheEndpointDoesNotKnow) {
  MockEndpoint endpoint([](const Request& request) {
    const json asked = json::parse(request.body);
    if (asked.contains("min_p"))
      return http_response(400, R"({"error":{"message":"Unrecognized request argument: min_p"}})");
    if (asked.contains("max_tokens"))
      return http_response(
          400, R"({"error":{"message":"Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."}})");
    return echo(request);
  });
  OpenAiModel model(options_of(endpoint));
  auto requests = chats(12);
  for (auto& request : requests) request.sampling = {.temperature = 0.7, .min_p = 0.1};
  const auto results = model.generate(requests);
  for (size_t i = 0; i < results.size(); ++i) EXPECT_EQ(results[i].text, fmt::format("to {}", i));
}

TEST(OpenAiModel, RefusesToRepeatARefusalForEver) {
  MockEndpoint endpoint(
      [](const Request&) { return http_response(400, R"({"error":{"message":"seed is bad whatever you send"}})"); });
  OpenAiModel model(options_of(endpoint));
  EXPECT_THAT(error_of([&] { model.generate(chats(1)); }), HasSubstr("answered 400: seed is bad"));
}

TEST(OpenAiModel, StopsCleanlyWhenTheBudgetIsSpent) {
  MockEndpoint endpoint(echo);
  auto options = options_of(endpoint);
  options.http.concurrency = 2;
  options.budget_tokens = 60;  // four answers of 15
  OpenAiModel model(options);
  int done = 0;
  const auto message = error_of([&] { model.generate(chats(20), [&](size_t, const GenerateResult&) { ++done; }); });
  EXPECT_THAT(message, HasSubstr("the budget is spent"));
  EXPECT_GE(done, 4);
  EXPECT_LE(done, 5) << "one more may have been under way, and is kept";
  EXPECT_EQ(endpoint.num_requests, done) << "nothing was paid for and thrown away";
  options.budget_tokens = 0;
  options.budget_cost = 0.001;  // 20 a million: 15 tokens cost 0.0003
  options.prompt_price = options.answer_price = 20;
  OpenAiModel other(options);
  EXPECT_THAT(error_of([&] { other.generate(chats(20)); }), HasSubstr("cost 0.001"));
}

TEST(OpenAiModel, ReadsScoresAndChoicesFromLogProbabilities) {
  MockEndpoint endpoint([](const Request& request) {
    const json asked = json::parse(request.body);
    if (asked.contains("echo")) {
      return http_response(200, json{{"choices",
                                      {{{"text", "ab cd"},
                                        {"logprobs",
                                         {{"token_logprobs", {nullptr, -1.0, -2.0, -0.5}},
                                          {"text_offset", {0, 2, 4, 5}},
                                          {"top_logprobs", {nullptr, {{"x", -1.0}}, {{"y", -0.1}}, {{"z", -0.5}}}}}}}}}}
                                    .dump());
    }
    return http_response(200, json{{"choices",
                                    {{{"message", {{"content", "4"}}},
                                      {"logprobs",
                                       {{"content",
                                         {{{"token", "4"},
                                           {"logprob", -0.1},
                                           {"top_logprobs",
                                            {{{"token", "4"}, {"logprob", std::log(0.6)}},
                                             {{"token", "5"}, {"logprob", std::log(0.3)}},
                                             {{"token", "!"}, {"logprob", std::log(0.1)}}}}}}}}}}}}}
                                  .dump());
  });
  OpenAiModel model(options_of(endpoint));
  const ScoreRequest scored{"ab", " cd"};
  const auto score = model.score(std::span(&scored, 1)).at(0);
  EXPECT_DOUBLE_EQ(score.log_likelihood, -3.0);
  EXPECT_EQ(score.num_tokens, 2);
  EXPECT_FALSE(score.is_greedy);
  ChoiceRequest choice;
  choice.messages = {{"user", "rate"}};
  choice.candidates = {"3", "4", "5"};
  const auto p = model.choose(std::span(&choice, 1)).at(0);
  EXPECT_NEAR(p[1] / p[2], 2.0, 1e-9);
  EXPECT_NEAR(p[0] + p[1] + p[2], 1.0, 1e-12);
}

}  // namespace
}  // namespace potstill
