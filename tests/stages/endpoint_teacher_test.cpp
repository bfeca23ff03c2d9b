// A teacher behind an endpoint: the tiny model of tests/golden/edge answers as vLLM does, or with echo and logprobs.
#include "potstill/stages/endpoint_teacher.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "tests/lm/mock_endpoint.h"

#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"
#include "potstill/distill/agreement.h"
#include "potstill/distill/knowledge.h"
#include "potstill/nn/transformer.h"
#include "potstill/stages/teach_stage.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

const fs::path kModel = POTSTILL_SOURCE_DIR "/tests/golden/edge/tiny_llama.gguf";

// The model's own answers to /completions.
class Answers {
 public:
  explicit Answers(bool vllm) : vllm_(vllm), model_(load_transformer(package_, at::kFloat, at::kCPU)) {}
  bool other_tokenizer = false;

  std::string operator()(const MockEndpoint::Request& request) const {
    const auto body = Json::parse(request.body);
    const bool asks_vllm = body.contains("prompt_logprobs");
    if (asks_vllm && !vllm_) return http_response(400, R"({"error": {"message": "unknown field 'prompt_logprobs'"}})");
    const auto ids = body.at("prompt").get<std::vector<TokenId>>();
    const auto k = body.at(asks_vllm ? "prompt_logprobs" : "logprobs").get<int64_t>();
    const at::NoGradGuard no_grad;
    const std::vector<std::vector<TokenId>> one = {ids};
    const auto log_p = at::log_softmax(model_.logits(model_.hidden_states(pack_sequences(one))), 1);
    const Json choice = asks_vllm ? vllm(ids, log_p, k) : echo(ids, log_p, k);
    return http_response(200, Json{{"choices", {choice}}, {"usage", {{"prompt_tokens", ids.size()}}}}.dump());
  }

 private:
  std::string text(int64_t id) const {
    const auto token = static_cast<TokenId>(id);
    std::string bytes = package_.tokenizer->decode_bytes(std::span(&token, 1));
    if (other_tokenizer && bytes == "e") return "E";
    if (Json(bytes).dump(-1, ' ', true, Json::error_handler_t::ignore).size() >= 3 && !bytes.empty() && bytes[0] >= 0)
      return bytes;
    std::string spelled = "bytes:";
    for (const char c : bytes) spelled += fmt::format("\\x{:02x}", static_cast<uint8_t>(c));
    return spelled;
  }
  Json vllm(const std::vector<TokenId>& ids, const at::Tensor& log_p, int64_t k) const {
    Json list = {nullptr};
    for (size_t i = 1; i < ids.size(); ++i) {
      const auto row = log_p[static_cast<int64_t>(i) - 1];
      const auto [values, tops] = row.topk(k);
      Json entry;
      const auto add = [&](int64_t id, double value) {
        entry[std::to_string(id)] = {{"logprob", value}, {"rank", 1}, {"decoded_token", text(id)}};
      };
      for (int64_t j = 0; j < k; ++j) add(tops[j].item<int64_t>(), values[j].item<double>());
      add(ids[i], row[ids[i]].item<double>());
      list.push_back(entry);
    }
    return {{"index", 0}, {"text", "x"}, {"prompt_logprobs", list}};
  }
  Json echo(const std::vector<TokenId>& ids, const at::Tensor& log_p, int64_t k) const {
    Json tokens, values = {nullptr}, tops = {nullptr};
    for (size_t i = 0; i < ids.size(); ++i) {
      tokens.push_back(text(ids[i]));
      if (i == 0) continue;
      const auto row = log_p[static_cast<int64_t>(i) - 1];
      const auto [best, best_ids] = row.topk(k);
      Json top;
      for (int64_t j = 0; j < k; ++j) top[text(best_ids[j].item<int64_t>())] = best[j].item<double>();
      values.push_back(row[ids[i]].item<double>());
      tops.push_back(top);
    }
    tokens.push_back("x");  // the one token that was written
    values.push_back(-1.0);
    tops.push_back(Json::object());
    return {{"index", 0},
            {"text", "…"},
            {"logprobs", {{"tokens", tokens}, {"token_logprobs", values}, {"top_logprobs", tops}}}};
  }

  bool vllm_;
  const ModelPackage package_ = open_model(kModel);
  Transformer model_;
};

class EndpointTeacherTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) / ("potstill_endpoint_" + std::to_string(::getpid()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    std::ofstream pairs(folder_ / "pairs.jsonl");
    for (int i = 0; i < 5; ++i) {
      pairs << R"({"instruction": "Say )" << i << R"(", "output": "The word is )" << i << R"(."})"
            << "\n";
    }
    config_.teacher_model = "tiny";
    config_.tokenizer = kModel.string();
    config_.top_k = 8;
  }
  void TearDown() override { fs::remove_all(folder_); }

  Artifact teach(const std::string& url, const std::string& name) {
    const TeachInputs inputs{.teacher = url, .data = folder_ / "pairs.jsonl"};
    return run_stage(folder_ / name, teach_key(inputs, config_, data_config_, 1), IfExists::kRefuse,
                     [&](ArtifactWriter& out) { run_teach_stage(inputs, config_, data_config_, out); });
  }

  fs::path folder_;
  TeachConfig config_;
  DistillDataConfig data_config_{.held_out = 0.2};
};

TEST_F(EndpointTeacherTest, KeepsTheLikeliestTokensAndTheMassOfTheRestByEitherWay) {
  const ModelPackage package = open_model(kModel);
  const auto data =
      load_distill_data(folder_ / "pairs.jsonl", *package.tokenizer, package.chat_template, data_config_, 1);
  for (const bool vllm : {true, false}) {
    const Answers answers(vllm);
    MockEndpoint endpoint([&](const MockEndpoint::Request& request) { return answers(request); });
    const Artifact artifact = teach(endpoint.url(), vllm ? "vllm" : "echo");
    EXPECT_EQ(endpoint.num_requests, vllm ? 5 : 6);  // one to see that it is not vLLM
    const double covered = artifact.results().at("covered_mass");
    EXPECT_GT(covered, 0);
    EXPECT_LT(covered, 1);
    EXPECT_THAT(artifact.results().at("knowledge").get<std::string>(), testing::HasSubstr("approximate: covers"));

    const auto signal = open_knowledge(artifact.path, package, data, data_config_, at::kFloat, at::kCPU);
    EXPECT_EQ(signal->quantity(), Quantity::kTopKKl);
    // The teacher as its own student: nothing to learn from what is known, and the same first choice everywhere.
    const Transformer model = load_transformer(package, at::kFloat, at::kCPU);
    std::vector<int64_t> all = data.train;
    all.insert(all.end(), data.held_out.begin(), data.held_out.end());
    const Agreement same = measure_agreement(model, *signal, data, all);
    EXPECT_NEAR(same.kl, 0, 1e-5);
    EXPECT_EQ(same.top1, 1);
    EXPECT_NEAR(same.ce, same.teacher_ce, 1e-5);
    // Another student: at most its KL to the whole distribution, and more than nothing.
    Transformer other = model;
    other.lm_head = other.lm_head + 0.1 * at::randn_like(other.lm_head);
    const Agreement apart = measure_agreement(other, *signal, data, all);
    EXPECT_GT(apart.kl, 1e-4);
  }
}

TEST_F(EndpointTeacherTest, RefusesAnEndpointThatReadsOtherTokens) {
  for (const bool vllm : {true, false}) {
    Answers answers(vllm);
    answers.other_tokenizer = true;
    MockEndpoint endpoint([&](const MockEndpoint::Request& request) { return answers(request); });
    try {
      teach(endpoint.url(), vllm ? "vllm" : "echo");
      FAIL() << "another tokenizer went through";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInput);
      EXPECT_THAT(error.what(), testing::HasSubstr("'E' there and 'e' here"));
    }
  }
}

TEST_F(EndpointTeacherTest, PaysNothingTwiceWhenTheBudgetIsSpent) {
  const Answers answers(true);
  MockEndpoint endpoint([&](const MockEndpoint::Request& request) { return answers(request); });
  config_.budget_tokens = 60;
  config_.concurrency = 1;
  try {
    teach(endpoint.url(), "cache");
    FAIL() << "the budget was not kept";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInterrupted);
  }
  const int asked = endpoint.num_requests;
  EXPECT_LT(asked, 5);
  config_.budget_tokens = 0;
  teach(endpoint.url(), "cache");
  EXPECT_EQ(endpoint.num_requests, 5);
}

TEST_F(EndpointTeacherTest, SaysWhatAnEndpointLacks) {
  MockEndpoint endpoint(
      [](const MockEndpoint::Request&) { return http_response(200, R"({"choices": [{"index": 0, "text": "x"}]})"); });
  try {
    teach(endpoint.url(), "cache");
    FAIL() << "an endpoint without log-probabilities went through";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kNetwork);
    EXPECT_THAT(error.what(), testing::HasSubstr("gives no log-probabilities"));
  }
}

}  // namespace
}  // namespace potstill
