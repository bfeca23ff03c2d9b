// The teacher's pass and what opens its cache, on the tiny models of tests/golden/edge.
#include "potstill/distill/teach.h"

#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "potstill/base/atomic_file.h"
#include "potstill/base/byte_count.h"
#include "potstill/base/error.h"
#include "potstill/distill/agreement.h"
#include "potstill/distill/knowledge_cache.h"
#include "potstill/distill/train.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const std::string kModels = POTSTILL_SOURCE_DIR "/tests/golden/edge/";

TeachConfig copied_head() {
  TeachConfig config;
  config.copy_head = true;
  return config;
}

TeachConfig with_memory(const std::string& memory) {
  TeachConfig config;
  config.memory = memory;
  return config;
}

class TeachTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) / ("potstill_teach_" + std::to_string(::getpid()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    std::ofstream pairs(folder_ / "pairs.jsonl");
    for (int i = 0; i < 9; ++i) {
      pairs << R"({"instruction": "What is number )" << i << R"(?", "output": "It is the )" << i
            << R"(th one, bad and abc."})"
            << "\n";
    }
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path made(const std::string& name) {
    fs::create_directories(folder_ / name);
    return folder_ / name;
  }
  DistillData data_of(const ModelPackage& model) {
    return load_distill_data(folder_ / "pairs.jsonl", *model.tokenizer, model.chat_template, {.held_out = 0.2}, 1);
  }
  // The model with another tokenizer.
  static ModelPackage with_vocabulary(ModelPackage model, const std::function<void(Vocabulary&)>& change) {
    Vocabulary vocabulary = model.tokenizer->vocabulary();
    change(vocabulary);
    model.tokenizer = std::make_shared<Tokenizer>(vocabulary);
    return model;
  }
  static void swap_a_and_b(Vocabulary& vocabulary) {
    const auto a = std::ranges::find(vocabulary.tokens, "a"), b = std::ranges::find(vocabulary.tokens, "b");
    ASSERT_TRUE(a != vocabulary.tokens.end() && b != vocabulary.tokens.end());
    std::iter_swap(a, b);
  }

  fs::path folder_;
  const ModelPackage teacher_ = open_model(kModels + "tiny_llama.gguf");
};

TEST_F(TeachTest, KeepsWhatGivesTheTeachersLogitsAgain) {
  const auto data = data_of(teacher_);
  const auto report = write_knowledge_cache(teacher_, data, copied_head(), {}, made("a"));
  const KnowledgeCache cache(folder_ / "a", at::kFloat, at::kCPU);
  const Transformer model = load_transformer(teacher_, at::kFloat, at::kCPU);
  const auto offsets = answer_position_offsets(data);
  double largest = 0;
  const at::NoGradGuard no_grad;
  for (size_t r = 0; r < data.records.size(); ++r) {
    const std::vector<std::vector<TokenId>> text = {data.records[r].tokens};
    const auto rows = at::tensor(data.records[r].answer_positions(), at::kLong);
    const auto exact = model.logits(model.hidden_states(pack_sequences(text)).index_select(0, rows));
    const auto kept = cache.logits(at::arange(offsets[r], offsets[r + 1], at::kLong), at::kCPU);
    largest = std::max(largest, (kept - exact.narrow(1, 0, kept.size(1))).abs().max().item<double>());
  }
  EXPECT_GT(report.error.max_logit, 0);
  EXPECT_LT(largest, 2 * report.error.max_logit + 1e-4);  // the head is in 16 bits too here
  EXPECT_FALSE(fs::exists(folder_ / "a" / "work"));
  EXPECT_THAT(cache.manifest().at("samples").at(0).get<std::string>(), HasSubstr("⟦It is the 0th one"));
}

struct Killed {};

TEST_F(TeachTest, GoesOnAtTheLayerWhereItWasToTheSameBytes) {
  const auto data = data_of(teacher_);
  write_knowledge_cache(teacher_, data, {}, {}, made("whole"));
  LayerStreamOptions kill;
  kill.progress = [](int64_t done, int64_t) {
    if (done == 1) throw Killed();
  };
  EXPECT_THROW(write_knowledge_cache(teacher_, data, {}, kill, made("cut")), Killed);
  EXPECT_FALSE(is_knowledge_cache(folder_ / "cut"));
  const auto report = write_knowledge_cache(teacher_, data, {}, {}, folder_ / "cut");
  EXPECT_EQ(report.resumed_at, 1);
  for (const char* file : {"hidden.safetensors", "records.safetensors", "knowledge.json"}) {
    EXPECT_EQ(read_file(folder_ / "whole" / file), read_file(folder_ / "cut" / file)) << file;
  }
  // Other pairs are other work: what lies there is not taken up.
  EXPECT_THROW(write_knowledge_cache(teacher_, data, {}, kill, made("other")), Killed);
  DistillData fewer = data;
  fewer.records.resize(5);
  EXPECT_EQ(write_knowledge_cache(teacher_, fewer, {}, {}, folder_ / "other").resumed_at, 0);
}

TEST_F(TeachTest, BoundsItsMemoryByTheBatchAndSaysWhatItNeeds) {
  const auto data = data_of(teacher_);
  EXPECT_EQ(write_knowledge_cache(teacher_, data, {}, {}, made("free")).tokens_per_batch, 4096);
  try {
    write_knowledge_cache(teacher_, data, with_memory("10MiB"), {}, made("tight"));
    FAIL() << "10 MiB are enough for LibTorch";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_THAT(error.what(), HasSubstr("takes about"));
  }
  EXPECT_THROW(write_knowledge_cache(teacher_, data, with_memory("a lot"), {}, made("words")), Error);
}

TEST(ByteSize, ReadsSizesAsPeopleWriteThem) {
  EXPECT_EQ(parse_byte_count("4GiB", "memory"), uint64_t{4} << 30);
  EXPECT_EQ(parse_byte_count("512 MiB", "memory"), uint64_t{512} << 20);
  EXPECT_EQ(parse_byte_count("1.5GB", "memory"), 1'500'000'000u);
  EXPECT_EQ(parse_byte_count("800M", "memory"), 800'000'000u);
  EXPECT_EQ(parse_byte_count("123456", "memory"), 123456u);
  for (const char* bad : {"", "GiB", "-1G", "4 gigs", "1e300T", "nan"}) {
    EXPECT_THROW(parse_byte_count(bad, "memory"), Error) << bad;
  }
}

// ---- tokenizers

TEST_F(TeachTest, RefusesOtherTokensInWordsAndTakesRowsThatOnlyPad) {
  const auto data = data_of(teacher_);
  write_knowledge_cache(teacher_, data, {}, {}, made("cache"));
  const auto other = with_vocabulary(teacher_, swap_a_and_b);
  try {
    open_knowledge(folder_ / "cache", other, data_of(other), {}, at::kFloat, at::kCPU);
    FAIL() << "another vocabulary went through";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    EXPECT_THAT(error.what(), HasSubstr("tokenizer differs"));
    EXPECT_THAT(error.what(), HasSubstr("'a'"));
    EXPECT_THAT(error.what(), HasSubstr("'b'"));
    EXPECT_THAT(error.what(), HasSubstr("--cross-tokenizer uld"));
  }
  const auto padded = with_vocabulary(teacher_, [](Vocabulary& vocabulary) {
    for (int i = 0; i < 3; ++i) {
      vocabulary.tokens.push_back("[PAD" + std::to_string(i) + "]");
      vocabulary.types.push_back(TokenType::kUnused);
    }
  });
  const auto same = open_knowledge(folder_ / "cache", padded, data_of(padded), {}, at::kFloat, at::kCPU);
  EXPECT_EQ(same->quantity(), Quantity::kKl);
}

// The check needs no weight: those of this cache's teacher are gone.
TEST_F(TeachTest, ComparesTokenizersBeforeItLooksForWeights) {
  fs::copy_file(kModels + "tiny_llama.gguf", folder_ / "teacher.gguf");
  const ModelPackage copy = open_model(folder_ / "teacher.gguf");
  const auto data = data_of(copy);
  write_knowledge_cache(copy, data, {}, {}, made("cache"));
  fs::remove(folder_ / "teacher.gguf");
  const auto other = with_vocabulary(teacher_, swap_a_and_b);
  try {
    open_knowledge(folder_ / "cache", other, data_of(other), {}, at::kFloat, at::kCPU);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("tokenizer differs"));
  }
}

TEST_F(TeachTest, LearnsAcrossTokenizersByUldUnderItsOwnName) {
  const ModelPackage student = with_vocabulary(open_model(kModels + "tiny_qwen2.gguf"), [](Vocabulary& vocabulary) {
    swap_a_and_b(vocabulary);
    vocabulary.merges.clear();  // without "th": other lengths too
  });
  write_knowledge_cache(teacher_, data_of(teacher_), {}, {}, made("cache"));
  const auto data = data_of(student);
  const auto signal =
      open_knowledge(folder_ / "cache", student, data, {.cross_tokenizer = "uld"}, at::kFloat, at::kCPU);
  EXPECT_EQ(signal->quantity(), Quantity::kUld);
  EXPECT_EQ(signal->num_positions(), answer_position_offsets(data).back());
  DistillConfig config;
  config.optimizer = "adamw";
  config.lr = 0.02;
  config.epochs = 6;
  config.batch_size = 3;
  std::vector<TrainStep> steps;
  TrainHooks hooks;
  hooks.on_step = [&](const TrainStep& step) { steps.push_back(step); };
  const Transformer model = load_transformer(student, at::kFloat, at::kCPU);
  const auto before = measure_agreement(model, *signal, data, data.train);
  const auto result = train_lora(model, *signal, data, config, 3, hooks);
  const auto after = measure_agreement(result.student, *signal, data, data.train);
  EXPECT_LT(after.kl, 0.9 * before.kl);
  EXPECT_LE(before.kl, 2);
  EXPECT_TRUE(to_json(after).contains("uld"));
  EXPECT_FALSE(to_json(after).contains("kl"));
  EXPECT_TRUE(to_json(steps.back()).contains("uld"));
  EXPECT_EQ(agreement_from_json(nlohmann::json(to_json(after))).quantity, Quantity::kUld);
  // Longer in the student's tokens: the last positions of each answer have no teacher, and are not compared.
  EXPECT_LT(after.tokens, answer_position_offsets(data).back());
  EXPECT_GT(after.tokens, 0);
}

TEST_F(TeachTest, RefusesOtherConversationsAcrossTokenizers) {
  const auto other = with_vocabulary(teacher_, swap_a_and_b);
  write_knowledge_cache(teacher_, data_of(teacher_), {}, {}, made("cache"));
  std::ofstream(folder_ / "pairs.jsonl") << R"({"instruction": "What is else?", "output": "Something."})"
                                         << "\n"
                                         << R"({"instruction": "And this?", "output": "Too."})"
                                         << "\n";
  try {
    open_knowledge(folder_ / "cache", other, data_of(other), {.cross_tokenizer = "uld"}, at::kFloat, at::kCPU);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("the pair of line 1"));
  }
}

}  // namespace
}  // namespace potstill
