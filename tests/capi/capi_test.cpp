#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "potstill_edge.h"

namespace {

const std::string kTiny = std::string(POTSTILL_SOURCE_DIR) + "/tests/golden/edge/tiny_llama.gguf";

int append(const char* piece, size_t length, void* user) {
  static_cast<std::string*>(user)->append(piece, length);
  return 1;
}
int stop_at_once(const char*, size_t, void* user) {
  ++*static_cast<int*>(user);
  return 0;
}

class CApi : public testing::Test {
 protected:
  CApi() {
    auto options = potstill_edge_default_options();
    options.threads = 2;
    options.context = 128;
    model = potstill_edge_load(kTiny.c_str(), &options);
  }
  ~CApi() override { potstill_edge_free(model); }
  potstill_edge_model* model = nullptr;
};

TEST_F(CApi, TokenizesAndBack) {
  ASSERT_NE(model, nullptr) << potstill_edge_error();
  EXPECT_EQ(potstill_edge_context(model), 128);
  const std::string text = "the <|im_end|> caf\xc3\xa9";
  const int64_t count = potstill_edge_tokenize(model, text.c_str(), nullptr, 0);
  ASSERT_GT(count, 3);
  std::vector<int32_t> ids(static_cast<size_t>(count));
  EXPECT_EQ(potstill_edge_tokenize(model, text.c_str(), ids.data(), ids.size()), count);
  EXPECT_LT(ids[0], potstill_edge_vocabulary_size(model));
  std::string back(64, '\0');
  back.resize(static_cast<size_t>(potstill_edge_detokenize(model, ids.data(), ids.size(), back.data(), back.size())));
  EXPECT_EQ(back, text);
  const int32_t outside = 1 << 20;
  EXPECT_EQ(potstill_edge_detokenize(model, &outside, 1, back.data(), back.size()), -1);
  EXPECT_NE(std::string(potstill_edge_error()).find("1048576"), std::string::npos);
}

TEST_F(CApi, GeneratesTheSameForTheSameSeedAndStopsWhenTold) {
  auto sampling = potstill_edge_default_sampling();
  sampling.max_tokens = 20;
  sampling.temperature = 1;
  sampling.seed = 3;
  std::string first, second;
  ASSERT_EQ(potstill_edge_generate(model, "one two", &sampling, append, &first), POTSTILL_EDGE_OK);
  ASSERT_EQ(potstill_edge_generate(model, "one two", &sampling, append, &second), POTSTILL_EDGE_OK);
  EXPECT_EQ(first, second);
  EXPECT_FALSE(first.empty());
  int pieces = 0;
  EXPECT_EQ(potstill_edge_generate(model, "one two", &sampling, stop_at_once, &pieces), POTSTILL_EDGE_OK);
  EXPECT_EQ(pieces, 1);
  const std::string until = first.substr(2, 1);
  const char* stops[] = {until.c_str()};
  sampling.stop = stops;
  sampling.num_stop = 1;
  std::string cut;
  EXPECT_EQ(potstill_edge_generate(model, "one two", &sampling, append, &cut), POTSTILL_EDGE_OK);
  EXPECT_EQ(cut, first.substr(0, first.find(until)));
}

TEST_F(CApi, ChatsThroughTheTemplate) {
  auto sampling = potstill_edge_default_sampling();
  sampling.max_tokens = 5;
  const potstill_edge_message messages[] = {{"system", "be brief"}, {"user", "hello"}};
  std::string answer;
  EXPECT_EQ(potstill_edge_chat(model, messages, 2, &sampling, append, &answer), POTSTILL_EDGE_OK);
  EXPECT_EQ(potstill_edge_chat(model, messages, 0, &sampling, append, &answer), POTSTILL_EDGE_USAGE);
}

TEST_F(CApi, SaysWhatIsWrong) {
  EXPECT_EQ(potstill_edge_load("/nowhere/model.gguf", nullptr), nullptr);
  EXPECT_NE(std::string(potstill_edge_error()).find("/nowhere/model.gguf"), std::string::npos);
  EXPECT_EQ(potstill_edge_load(nullptr, nullptr), nullptr);
  auto options = potstill_edge_default_options();
  options.size = 4096;  // of a newer library
  EXPECT_EQ(potstill_edge_load(kTiny.c_str(), &options), nullptr);
  EXPECT_EQ(potstill_edge_generate(nullptr, "a", nullptr, nullptr, nullptr), POTSTILL_EDGE_USAGE);
  EXPECT_EQ(potstill_edge_generate(model, nullptr, nullptr, nullptr, nullptr), POTSTILL_EDGE_USAGE);
  const std::string too_long(400, 'x');
  EXPECT_EQ(potstill_edge_generate(model, too_long.c_str(), nullptr, nullptr, nullptr), POTSTILL_EDGE_USAGE);
  EXPECT_NE(std::string(potstill_edge_error()).find("128"), std::string::npos) << potstill_edge_error();
  potstill_edge_free(nullptr);
}

// A caller that was compiled when the struct had fewer fields.
TEST_F(CApi, TakesAnOlderCallersStruct) {
  auto sampling = potstill_edge_default_sampling();
  sampling.size = offsetof(potstill_edge_sampling, temperature);
  sampling.max_tokens = 4;
  sampling.temperature = -1;  // beyond the size: not read
  std::string text;
  EXPECT_EQ(potstill_edge_generate(model, "abc", &sampling, append, &text), POTSTILL_EDGE_OK) << potstill_edge_error();
}

}  // namespace
