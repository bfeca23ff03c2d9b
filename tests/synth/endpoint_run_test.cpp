// A whole run over HTTP, against a server that misbehaves now and then in every way: the same bytes whatever the number
// of requests in flight and the order of answers.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "tests/lm/keep_alive_endpoint.h"

#include "potstill/base/log.h"
#include "potstill/base/sha256.h"
#include "potstill/lm/openai_model.h"
#include "potstill/synth/self_instruct.h"

namespace potstill {
namespace {

using nlohmann::json;

// The content follows from the request alone; now and then it is refused, cut off, empty or not sent.
std::string answer_to(const KeepAliveEndpoint::Request& request) {
  switch (request.number % 13) {
    case 1:
      return keep_alive_response(429, R"({"error":{"message":"slow down"}})", "Retry-After: 0\r\n");
    case 3:
      return keep_alive_response(500, "oops");
    case 5:
      return keep_alive_response(503, "", "retry-after-ms: 1\r\n");
    case 7:
      return "";  // hangs up
    case 9:
      return keep_alive_response(200, R"({"choices": [{"message": {"content": "cut o)");
    case 11:
      return keep_alive_response(200, R"({"choices": []})");
    default:
      break;
  }
  const json asked = json::parse(request.body);
  const std::string last = asked["messages"].back()["content"];
  const std::string hash = sha256_hex(last + (asked.contains("seed") ? asked["seed"].dump() : ""));
  const int number = static_cast<int>(std::stoul(hash.substr(0, 6), nullptr, 16) % 1000);
  std::string text, finish = "stop";
  if (asked.contains("response_format")) {
    const std::string topic = last.substr(last.find(": ") + 2);
    text = nlohmann::ordered_json{{"question",
                                   fmt::format("Which {} of w{} w{} w{} w{} weighs {} grams?", topic, hash.substr(6, 4),
                                               hash.substr(10, 4), hash.substr(14, 4), hash.substr(18, 4), number)},
                                  {"answer", fmt::format("{} number {}", topic, number)},
                                  {"wrong", {topic + " alone", topic + " again and again", topic + " below"}}}
               .dump();
    if (number % 7 == 0) text.resize(text.size() * 6 / 10), finish = "length";  // parts of it are whole
    if (number % 11 == 0) text = "I'm sorry, I cannot help with that.";
    if (number % 13 == 0) text = "";
  } else if (last.find("Reply with the letter") != std::string::npos) {
    const size_t at = last.find(" number ");
    text = at == std::string::npos ? "unanswerable" : std::string(1, last[last.rfind('\n', at) + 1]);
    if (number % 5 == 0) text = "unanswerable";
  } else {
    text = last.find("Answer: ") != std::string::npos ? "thing alone; thing again; thing below" : "thing number 7";
  }
  return keep_alive_response(
      200, json{{"choices", {{{"message", {{"role", "assistant"}, {"content", text}}}, {"finish_reason", finish}}}},
                {"usage", {{"prompt_tokens", 50}, {"completion_tokens", 10}}}}
               .dump());
}

TEST(EndpointRun, SameBytesWhateverIsInFlight) {
  set_verbosity(Verbosity::kQuiet);
  Task task;
  task.name = task.description = "weights";
  task.answer_form = "multiple_choice";
  task.question_instruction = task.answer_instruction = task.wrong_instruction = "Write it.";
  task.seeds = {{.topic = "brick",
                 .question = "What does a brick weigh on a cold morning?",
                 .answer = "two kilos",
                 .wrong = {"two grams", "two tons", "two feathers"}}};
  for (const char* topic :
       {"apple", "bench", "candle", "engine", "feather", "hammer", "kettle", "ladder", "mirror", "pencil"})
    task.subtopics.push_back({.name = topic});
  task.filter.answer_shape = "phrase";
  task.filter.min_answer_words = 1;
  SynthConfig config;
  config.pairs = 24;
  config.prompting = "chat";
  config.writing = "json";
  std::string expected;
  for (const int in_flight : {1, 7, 64}) {
    KeepAliveEndpoint endpoint(answer_to);
    OpenAiOptions options;
    options.http.url = endpoint.url();
    options.http.concurrency = in_flight;
    options.http.first_pause = std::chrono::milliseconds(1);
    options.http.max_tries = 60;
    options.model = "m";
    OpenAiModel model(options);
    const auto folder = std::filesystem::temp_directory_path();
    const auto journal = folder / fmt::format("potstill_endpoint_run_{}_{}.jsonl", ::getpid(), in_flight);
    const auto used = folder / fmt::format("potstill_endpoint_run_{}_{}.used", ::getpid(), in_flight);
    std::string bytes;
    {
      AnswerStore store(model, journal, 16);
      const auto outcome = self_instruct(task, config, 11, {.teacher = store});
      EXPECT_EQ(outcome.accepted.size(), 24u) << outcome.yield_table();
      EXPECT_GT(outcome.yield()["repaired"].get<int>(), 0);
      EXPECT_GT(outcome.yield()["refused"].value("unanswerable", 0), 0) << outcome.yield_table();
      for (const auto* list : {&outcome.accepted, &outcome.rejected}) {
        for (const auto& candidate : *list) bytes += to_record(candidate, task, {.teacher = "m"}).dump() + "\n";
      }
      store.write_used(used);
    }
    bytes += read_file(used);
    std::filesystem::remove(journal);
    std::filesystem::remove(used);
    EXPECT_GT(model.num_retries(), 10);
    if (expected.empty()) expected = bytes;
    EXPECT_EQ(bytes, expected) << in_flight << " in flight";
  }
}

}  // namespace
}  // namespace potstill
