#include "potstill/edge/batch_model.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

namespace potstill::edge {
namespace {

const std::filesystem::path kTiny = std::filesystem::path(POTSTILL_SOURCE_DIR) / "tests/golden/edge/tiny_llama.gguf";

std::vector<GenerateRequest> some_requests() {
  std::vector<GenerateRequest> requests(11);
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].prompt = "The " + std::string(1 + 5 * i, static_cast<char>('a' + i)) + " is";
    requests[i].max_new_tokens = static_cast<int64_t>(3 + 4 * (i % 4));
    if (i % 2 == 1) requests[i].sampling = {.temperature = 1.0, .seed = i};
  }
  return requests;
}

TEST(BatchModel, TextsAreThoseOfOneAtATimeWhateverTheCompany) {
  const auto requests = some_requests();
  BatchModel model(kTiny, {.threads = 2, .context = 128}, 4);
  std::set<size_t> done;
  const auto together =
      model.generate(requests, [&](size_t i, const GenerateResult&) { EXPECT_TRUE(done.insert(i).second); });
  EXPECT_EQ(done.size(), requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto alone = model.generate(std::span(requests).subspan(i, 1)).front();
    EXPECT_EQ(together[i].text, alone.text) << i;
    EXPECT_EQ(together[i].tokens, alone.tokens) << i;
    EXPECT_EQ(together[i].finish, alone.finish) << i;
    EXPECT_GT(together[i].prompt_tokens, 0);
  }
}

TEST(BatchModel, KeepsToASchema) {
  BatchModel model(kTiny, {.threads = 2, .context = 256}, 3);
  std::vector<GenerateRequest> requests(4);
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].prompt = "JSON:";
    requests[i].max_new_tokens = 200;
    requests[i].sampling = {.temperature = 1.5, .seed = i};
    requests[i].json_schema =
        R"({"type":"object","properties":{"n":{"type":"integer","minimum":1,"maximum":5},"t":{"type":"string","maxLength":8}},)"
        R"("required":["n","t"],"additionalProperties":false})";
  }
  for (const auto& result : model.generate(requests)) {
    ASSERT_EQ(result.finish, FinishReason::kStop) << result.text;
    const auto value = nlohmann::json::parse(result.text);
    EXPECT_GE(value.at("n").get<int>(), 1);
    EXPECT_LE(value.at("n").get<int>(), 5);
    EXPECT_TRUE(value.at("t").is_string());
  }
}

TEST(BatchModel, NoRequestsAreNoWork) {
  BatchModel model(kTiny, {.threads = 1, .context = 64}, 2);
  EXPECT_TRUE(model.generate({}).empty());
}

}  // namespace
}  // namespace potstill::edge
