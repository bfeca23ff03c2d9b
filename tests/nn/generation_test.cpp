#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "tests/nn/tiny_model.h"

#include "potstill/base/error.h"
#include "potstill/nn/cached_decoder.h"
#include "potstill/nn/perplexity.h"
#include "potstill/nn/torch_model.h"

namespace potstill {
namespace {

using Sequences = std::vector<std::vector<int32_t>>;

Sequences golden_sequences(const std::string& name) {
  Sequences sequences;
  const auto file = read_json_file(golden_folder() / (name + ".json"));
  for (const auto& entry : file.at("sequences")) {
    sequences.push_back(entry.at("token_ids").get<std::vector<int32_t>>());
  }
  return sequences;
}

class Decoder : public testing::TestWithParam<const char*> {};

TEST_P(Decoder, StepsEqualTheWholePass) {
  const at::NoGradGuard no_grad;
  const Transformer model = load_transformer(tiny_model(GetParam()), at::kFloat, at::kCPU);
  const Sequences sequences = golden_sequences(GetParam());
  const auto expected = [&](const std::vector<int32_t>& tokens) {
    return model.logits(model.hidden_states(pack_sequences(Sequences{tokens})));
  };
  const auto long_one = expected(sequences[0]), short_one = expected(sequences[1]);
  CachedDecoder decoder(model, 3, 40);
  const auto prompt = std::span(sequences[0]).first(5);
  EXPECT_LT((decoder.prefill(2, prompt) - long_one[4]).abs().max().item<double>(), 1e-4);
  for (size_t t = 5; t < sequences[0].size(); ++t) {
    // Slot 0 is filled while slot 2 is at work, and left alone when it is through; slot 1 stays empty.
    const size_t s = t - 10;
    if (t == 10) decoder.prefill(0, std::span(sequences[1]).first(1));
    const bool both = t > 10 && s < sequences[1].size();
    const auto logits = decoder.step(std::vector<int32_t>{both ? sequences[1][s] : -1, -1, sequences[0][t]});
    EXPECT_LT((logits[2] - long_one[static_cast<int64_t>(t)]).abs().max().item<double>(), 1e-4) << t;
    if (both) {
      EXPECT_LT((logits[0] - short_one[static_cast<int64_t>(s)]).abs().max().item<double>(), 1e-4) << s;
    }
  }
}

TEST_P(Decoder, ARowDoesNotDependOnItsSlotOrNeighbours) {
  const at::NoGradGuard no_grad;
  Transformer model = load_transformer(tiny_model(GetParam()), at::kFloat, at::kCPU);
  model.pack();
  const auto sequence = golden_sequences(GetParam())[0];
  const auto run = [&](int64_t slot, bool company) {
    CachedDecoder decoder(model, 16, company ? 128 : 40);
    decoder.prefill(slot, std::span(sequence).first(5));
    std::vector<at::Tensor> rows;
    for (size_t t = 5; t < 20; ++t) {
      std::vector<int32_t> tokens(16, -1);
      for (int32_t other = 0; company && other < 16; ++other) {
        if (other % 3 != 0) continue;
        if (t == 5 && other != slot)
          decoder.prefill(other, std::span(sequence).subspan(1, static_cast<size_t>(other) + 2));
        tokens[static_cast<size_t>(other)] = other + 7;
      }
      tokens[static_cast<size_t>(slot)] = sequence[t];
      rows.push_back(decoder.step(tokens)[slot].clone());
    }
    return at::stack(rows);
  };
  const auto alone = run(0, false);
  EXPECT_TRUE(alone.equal(run(0, true)));
  EXPECT_TRUE(alone.equal(run(13, true)));
}

// 100 tokens: one whole chunk of 64 that prompts can share, and the beginning of another.
std::vector<int32_t> long_prompt(size_t length, int32_t twist) {
  std::vector<int32_t> tokens(length);
  for (size_t t = 0; t < length; ++t) tokens[t] = static_cast<int32_t>((t * t + 3 * t) % 40);
  tokens.back() = twist;
  return tokens;
}

TEST_P(Decoder, LongPromptsAreReadInChunks) {
  const at::NoGradGuard no_grad;
  const Transformer model = load_transformer(tiny_model(GetParam()), at::kFloat, at::kCPU);
  const auto prompt = long_prompt(100, 5);
  const auto expected = model.logits(model.hidden_states(pack_sequences(Sequences{prompt})));
  CachedDecoder decoder(model, 2, 128);
  EXPECT_LT((decoder.prefill(1, std::span(prompt).first(99)) - expected[98]).abs().max().item<double>(), 1e-4);
  const auto next = decoder.step(std::vector<int32_t>{-1, prompt[99]});
  EXPECT_LT((next[1] - expected[99]).abs().max().item<double>(), 1e-4);
}

TEST_P(Decoder, ASharedBeginningIsCopiedToTheSameBits) {
  const at::NoGradGuard no_grad;
  Transformer model = load_transformer(tiny_model(GetParam()), at::kFloat, at::kCPU);
  model.pack();
  const auto run = [&](const std::vector<std::pair<int64_t, std::vector<int32_t>>>& before, int64_t copied) {
    CachedDecoder decoder(model, 4, 160);
    for (const auto& [slot, prompt] : before) decoder.prefill(slot, prompt);
    for (int i = 0; i < 3 && !before.empty(); ++i) decoder.step(std::vector<int32_t>{7, 8, 9, 10});
    const int64_t copied_before = decoder.copied_tokens();
    const auto first = decoder.prefill(2, long_prompt(100, 5)).clone();
    EXPECT_EQ(decoder.copied_tokens() - copied_before, copied);
    return at::stack({first, decoder.step(std::vector<int32_t>{-1, -1, 11, -1})[2]});
  };
  const auto alone = run({}, 0);
  EXPECT_TRUE(alone.equal(run({{0, long_prompt(90, 6)}}, 64)));                         // from a neighbour
  EXPECT_TRUE(alone.equal(run({{2, long_prompt(130, 6)}}, 64)));                        // from its own slot
  EXPECT_TRUE(alone.equal(run({{1, long_prompt(64, 6)}, {3, {1, 2, 3}}}, 0)));          // 63 tokens are no chunk
  EXPECT_TRUE(alone.equal(run({{0, long_prompt(90, 6)}, {0, long_prompt(9, 6)}}, 0)));  // no longer there
}

INSTANTIATE_TEST_SUITE_P(Tiny, Decoder, testing::Values("tiny_llama", "tiny_mistral", "tiny_qwen2", "tiny_qwen3"),
                         [](const auto& instance) { return std::string(instance.param); });

// The tests below run the real model once each.
class SmolLm2 : public testing::Test {
 protected:
  static LanguageModel& model() {
    static const auto model = make_torch_model(open_model(smollm2_path()), {.dtype = "fp32", .num_slots = 4});
    return *model;
  }
  void SetUp() override {
    if (!std::filesystem::exists(smollm2_path())) GTEST_SKIP() << "no " << smollm2_path() << ": run make test";
  }
};

GenerateRequest question(const std::string& text, double temperature, int64_t max_new_tokens) {
  GenerateRequest request;
  request.messages = {{"user", text}};
  request.max_new_tokens = max_new_tokens;
  request.sampling.temperature = temperature;
  request.sampling.seed = 9;
  return request;
}

TEST_F(SmolLm2, ARequestsTextDoesNotDependOnItsCompany) {
  std::vector<GenerateRequest> requests;
  for (const char* text : {"Name a colour.", "Why is the sky blue?", "What do bees make?", "Count to five.",
                           "Say hello.", "What is ice?"}) {
    requests.push_back(question(text, 0.9, 12));
  }
  std::vector<size_t> order;
  const auto together = model().generate(requests, [&](size_t i, const GenerateResult&) { order.push_back(i); });
  EXPECT_EQ(order.size(), requests.size());
  for (const size_t i : {size_t{1}, size_t{5}}) {
    const auto alone = model().generate(std::span(requests).subspan(i, 1));
    EXPECT_EQ(alone[0].text, together[i].text);
    EXPECT_EQ(alone[0].tokens, together[i].tokens);
  }
}

TEST_F(SmolLm2, AnswersStopWhereAsked) {
  auto request = question("What is the capital of France?", 0, 24);
  const auto whole = model().generate(std::vector{request})[0];
  EXPECT_NE(whole.text.find("Paris"), std::string::npos) << whole.text;
  EXPECT_EQ(whole.finish, FinishReason::kStop);
  request.stop = {"no such text", "Paris"};
  const auto cut = model().generate(std::vector{request})[0];
  EXPECT_EQ(cut.text, whole.text.substr(0, whole.text.find("Paris")));
  EXPECT_EQ(cut.finish, FinishReason::kStop);
  request.stop = {};
  request.max_new_tokens = 3;
  const auto limited = model().generate(std::vector{request})[0];
  EXPECT_EQ(limited.tokens.size(), 3u);
  EXPECT_EQ(limited.finish, FinishReason::kLength);
  request.answer_prefix = "The capital of France is";
  EXPECT_NE(model().generate(std::vector{request})[0].text.find("Paris"), std::string::npos);
}

TEST_F(SmolLm2, KeepsToASchemaAndToItsOwnTextWhereThatFits) {
  auto request = question("Name a fruit and its colour as JSON.", 0.8, 120);
  request.json_schema =
      R"({"type":"object","properties":{"fruit":{"type":"string","maxLength":30},"colour":{"enum":["red","yellow","green"]}},)"
      R"("required":["fruit","colour"],"additionalProperties":false})";
  auto free = question("What is ice?", 0.8, 8);
  const std::vector<GenerateRequest> requests{request, free, request};
  const auto results = model().generate(requests);
  for (const size_t i : {size_t{0}, size_t{2}}) {
    ASSERT_EQ(results[i].finish, FinishReason::kStop) << results[i].text;
    const auto value = nlohmann::json::parse(results[i].text);
    EXPECT_TRUE(value.at("fruit").is_string());
    EXPECT_TRUE(value.at("colour") == "red" || value.at("colour") == "yellow" || value.at("colour") == "green");
  }
  EXPECT_EQ(results[1].text, model().generate(std::vector{free})[0].text);
}

TEST_F(SmolLm2, ScoresAreSumsOfTheWholePass) {
  const std::string context = "Question: What do plants take in from the air?\nAnswer:";
  const std::vector<ScoreRequest> requests = {{context, " carbon dioxide"},
                                              {context, " Carbon"},
                                              {context + " ", "dioxide"},
                                              {"", "Water is wet."},
                                              {context, " the rays of the old moon"}};
  const auto scores = model().score(requests);
  const ModelPackage package = open_model(smollm2_path());
  const at::NoGradGuard no_grad;
  const Transformer plain = load_transformer(package, at::kFloat, at::kCPU);
  for (size_t i = 0; i < requests.size(); ++i) {
    auto tokens = package.tokenizer->encode(requests[i].context + requests[i].continuation);
    int64_t first = static_cast<int64_t>(package.tokenizer->encode(i == 2 ? context : requests[i].context).size());
    if (requests[i].context.empty()) {
      tokens.insert(tokens.begin(), static_cast<int32_t>(*package.config.bos_token_id));
      first = 1;
    }
    const auto log_probs = plain.logits(plain.hidden_states(pack_sequences(Sequences{tokens}))).log_softmax(1);
    double expected = 0;
    for (int64_t t = first; t < static_cast<int64_t>(tokens.size()); ++t) {
      expected += log_probs[t - 1][tokens[static_cast<size_t>(t)]].item<double>();
    }
    EXPECT_NEAR(scores[i].log_likelihood, expected, 1e-3) << i;
    EXPECT_EQ(scores[i].num_tokens, static_cast<int64_t>(tokens.size()) - first) << i;
  }
}

TEST_F(SmolLm2, ChoicesAreProbabilities) {
  ChoiceRequest request;
  request.prompt = "The opposite of hot is";
  request.candidates = {" cold", " sandwich", " warm"};
  const auto probabilities = model().choose(std::vector{request})[0];
  ASSERT_EQ(probabilities.size(), 3u);
  EXPECT_NEAR(std::accumulate(probabilities.begin(), probabilities.end(), 0.0), 1.0, 1e-9);
  EXPECT_GT(probabilities[0], probabilities[2]);
  EXPECT_GT(probabilities[2], probabilities[1]);
}

TEST_F(SmolLm2, PerplexityCountsAllButAWindowsFirstToken) {
  const ModelPackage package = open_model(smollm2_path());
  const std::string text = "Water boils at 100 degrees Celsius at sea level. On a high mountain it boils sooner.";
  const auto tokens = package.tokenizer->encode(text);
  PerplexityOptions options;
  options.dtype = "fp32";
  options.context = 8;
  const auto result = measure_perplexity(package, text, options);
  const auto windows = static_cast<int64_t>((tokens.size() + 7) / 8);
  EXPECT_EQ(result.scored_tokens, static_cast<int64_t>(tokens.size()) - windows);
  EXPECT_NEAR(result.perplexity, std::exp(result.mean_nll), 1e-9);
  options.score_from = 5;  // the second half of each window, as llama.cpp scores it
  const auto second_half = measure_perplexity(package, text, options);
  const auto last = static_cast<int64_t>(tokens.size() % 8);
  EXPECT_EQ(second_half.scored_tokens, static_cast<int64_t>(tokens.size() / 8) * 3 + std::max<int64_t>(0, last - 5));
  EXPECT_NE(second_half.perplexity, result.perplexity);
  options.score_from = 8;
  EXPECT_THROW(measure_perplexity(package, text, options), Error);
  options.score_from = 1;
  options.context = 1;
  EXPECT_THROW(measure_perplexity(package, text, options), Error);
  options.context = 8;
  EXPECT_THROW(measure_perplexity(package, "", options), Error);
}

}  // namespace
}  // namespace potstill
