#include "potstill/nn/retokenize.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <numeric>

#include "potstill/nn/transformer.h"
#include "potstill/text/relabel.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

class Retokenize : public testing::TestWithParam<const char*> {
 protected:
  Retokenize()
      : folder_(fs::path(testing::TempDir()) / ("potstill_retokenize_" + std::to_string(::getpid()))),
        model_(open_model(fs::path(POTSTILL_SOURCE_DIR "/tests/golden/edge") / GetParam())),
        shuffled_(shuffled_ids(model_.tokenizer->vocabulary(), 11)),
        own_(shuffled_.size()) {
    fs::remove_all(folder_);
    std::iota(own_.begin(), own_.end(), 0);
  }
  ~Retokenize() override { fs::remove_all(folder_); }

  ModelPackage written(std::shared_ptr<const Tokenizer> tokenizer, const std::vector<TokenId>& input,
                       const std::vector<TokenId>& output, const std::string& name) {
    write_retokenized(model_, std::move(tokenizer), input, output, folder_ / name);
    return open_model(folder_ / name);
  }
  static at::Tensor logits(const ModelPackage& package, const std::vector<TokenId>& tokens) {
    const at::NoGradGuard no_grad;
    const Transformer transformer = load_transformer(package, at::kFloat, at::kCPU);
    return transformer.logits(transformer.hidden_states(pack_sequences(std::vector<std::vector<TokenId>>{tokens})));
  }
  at::Tensor columns(const at::Tensor& logits, const std::vector<TokenId>& ids) {
    return logits.index_select(1, at::tensor(std::vector<int64_t>(ids.begin(), ids.end()), at::kLong));
  }

  fs::path folder_;
  ModelPackage model_;
  std::vector<TokenId> shuffled_, own_;
};

constexpr const char* kText = "What do plants take from the air?";

TEST_P(Retokenize, OtherIdsAreTheSameFunction) {
  const auto tokenizer =
      std::make_shared<const Tokenizer>(relabel_vocabulary(model_.tokenizer->vocabulary(), shuffled_));
  const ModelPackage own = written(model_.tokenizer, own_, own_, "own");
  const ModelPackage other = written(tokenizer, shuffled_, shuffled_, "other");
  EXPECT_EQ(other.config.tie_word_embeddings, model_.config.tie_word_embeddings);
  EXPECT_EQ(other.config.eos_token_ids.size(), model_.config.eos_token_ids.size());
  const auto tokens = own.tokenizer->encode(kText), renamed = other.tokenizer->encode(kText);
  EXPECT_NE(tokens, renamed);
  // The same products of the same rows, summed in another blocking at most.
  EXPECT_TRUE(at::allclose(columns(logits(own, tokens), shuffled_), logits(other, renamed), 1e-5, 1e-5));
}

TEST_P(Retokenize, AHeadOfItsOwnAnswersInOtherIds) {
  const ModelPackage own = written(model_.tokenizer, own_, own_, "own");
  const ModelPackage misaligned = written(model_.tokenizer, own_, shuffled_, "misaligned");
  EXPECT_FALSE(misaligned.config.tie_word_embeddings);
  EXPECT_TRUE(compare_tokenizers(*own.tokenizer, *misaligned.tokenizer).same);  // which is why no guard sees it
  const auto tokens = own.tokenizer->encode(kText);
  EXPECT_EQ(misaligned.tokenizer->encode(kText), tokens);
  EXPECT_TRUE(at::allclose(columns(logits(own, tokens), shuffled_), logits(misaligned, tokens), 1e-5, 1e-5));
}

INSTANTIATE_TEST_SUITE_P(Models, Retokenize, testing::Values("tiny_llama.gguf", "tiny_qwen2.gguf"),
                         [](const auto& model) { return std::string(model.param).substr(0, 10); });

}  // namespace
}  // namespace potstill
