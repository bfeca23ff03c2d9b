// Logits against transformers: tests/golden/nn/make_golden.py.
#include "potstill/nn/transformer.h"

#include <gtest/gtest.h>

#include "tests/nn/tiny_model.h"

#include "potstill/base/error.h"
#include "potstill/nn/layer_stream.h"

namespace potstill {
namespace {

using Sequences = std::vector<std::vector<int32_t>>;

struct Golden {
  nlohmann::json file;
  Sequences sequences;

  explicit Golden(const std::string& name) : file(read_json_file(golden_folder() / (name + ".json"))) {
    for (const auto& sequence : file.at("sequences")) {
      sequences.push_back(sequence.at("token_ids").get<std::vector<int32_t>>());
    }
  }

  // Largest distance of logits [ΣT, V] of the packed sequences to the stored ones, logsumexp counted in.
  double error(const at::Tensor& logits, const std::vector<int64_t>& offsets) const {
    const auto vocabulary = at::tensor(file.at("vocabulary").get<std::vector<int64_t>>(), at::kLong);
    double worst = 0;
    for (size_t s = 0; s < sequences.size(); ++s) {
      const auto& entry = file["sequences"][s];
      for (size_t i = 0; i < entry.at("positions").size(); ++i) {
        const auto row = logits[offsets[s] + entry["positions"][i].get<int64_t>()];
        const auto expected = at::tensor(entry["logits"][i].get<std::vector<float>>());
        worst = std::max(worst, (row.index_select(0, vocabulary) - expected).abs().max().item<double>());
        worst = std::max(
            worst, std::abs(row.to(at::kDouble).logsumexp(0).item<double>() - entry["logsumexp"][i].get<double>()));
      }
    }
    return worst;
  }
};

class Families : public testing::TestWithParam<const char*> {};

// Logits of size 3 after some thirty fp32 roundings one after the other, each 2⁻²⁴ of values of that size: 6e-6 times two.
constexpr double kTolerance = 2e-5;

TEST_P(Families, LogitsEqualTransformers) {
  const at::NoGradGuard no_grad;
  const Golden golden(GetParam());
  const Transformer model = load_transformer(tiny_model(GetParam()), at::kFloat, at::kCPU);
  const PackedBatch batch = pack_sequences(golden.sequences);
  EXPECT_LT(golden.error(model.logits(model.hidden_states(batch)), batch.offsets), kTolerance);
}

TEST_P(Families, PackedWeightsGiveTheSameLogits) {
  const at::NoGradGuard no_grad;
  const Golden golden(GetParam());
  Transformer model = load_transformer(tiny_model(GetParam()), at::kFloat, at::kCPU);
  model.pack();
  const PackedBatch batch = pack_sequences(golden.sequences);
  EXPECT_LT(golden.error(model.logits(model.hidden_states(batch)), batch.offsets), kTolerance);
}

TEST_P(Families, LayerMajorEqualsTheWholeModel) {
  const at::NoGradGuard no_grad;
  const Golden golden(GetParam());
  const ModelPackage package = tiny_model(GetParam());
  const Transformer model = load_transformer(package, at::kFloat, at::kCPU);
  LayerStreamOptions options;
  options.tokens_per_batch = 45;  // each sequence becomes a batch of its own
  CorpusState corpus = embed_corpus(package, golden.sequences, options);
  ASSERT_EQ(corpus.batches.size(), 2u);
  int64_t layers_seen = 0;
  options.progress = [&](int64_t done, int64_t) { layers_seen = done; };
  run_layers(package, corpus, options, 0, 2);
  finish_corpus(package, corpus, options);
  EXPECT_EQ(layers_seen, 2);
  const PackedBatch batch = pack_sequences(golden.sequences);
  EXPECT_LT((at::cat(corpus.hidden) - model.hidden_states(batch)).abs().max().item<double>(), 1e-5);
}

TEST_P(Families, Bfloat16IsNear) {
  const at::NoGradGuard no_grad;
  const Golden golden(GetParam());
  const Transformer model = load_transformer(tiny_model(GetParam()), at::kBFloat16, at::kCPU);
  const PackedBatch batch = pack_sequences(golden.sequences);
  const double error = golden.error(model.logits(model.hidden_states(batch)), batch.offsets);
  EXPECT_LT(error, 0.5);  // 8 bits of mantissa under logits up to 20
  EXPECT_GT(error, 0);
}

INSTANTIATE_TEST_SUITE_P(Tiny, Families, testing::Values("tiny_llama", "tiny_mistral", "tiny_qwen2", "tiny_qwen3"),
                         [](const auto& instance) { return std::string(instance.param); });

TEST(Transformer, SequencesOfABatchDoNotSeeEachOther) {
  const at::NoGradGuard no_grad;
  const Golden golden("tiny_llama");
  const Transformer model = load_transformer(tiny_model("tiny_llama"), at::kFloat, at::kCPU);
  const PackedBatch both = pack_sequences(golden.sequences);
  const PackedBatch second = pack_sequences(std::span(golden.sequences).subspan(1));
  const auto alone = model.hidden_states(second);
  EXPECT_LT((model.hidden_states(both).slice(0, both.offsets[1]) - alone).abs().max().item<double>(), 1e-5);
}

TEST(Transformer, AContinuationSeesItsParentAndItself) {
  const at::NoGradGuard no_grad;
  for (const char* name : {"tiny_llama", "tiny_mistral"}) {  // mistral: with a window over the seam
    const Golden golden(name);
    const Transformer model = load_transformer(tiny_model(name), at::kFloat, at::kCPU);
    const auto& whole = golden.sequences[0];
    const std::vector<int32_t> context(whole.begin(), whole.begin() + 11), rest(whole.begin() + 11, whole.end());
    PackedBatch shared = pack_sequences(Sequences{golden.sequences[1], context, rest, {}, rest});
    shared.parent = {-1, -1, 1, 1, 1};
    const auto moved = shared.positions.slice(0, shared.offsets[2]);
    moved.add_(11);
    const auto expected = model.hidden_states(pack_sequences(Sequences{whole})).slice(0, 11);
    const auto hidden = model.hidden_states(shared);
    for (const size_t child : {size_t{2}, size_t{4}}) {
      const auto rows = hidden.slice(0, shared.offsets[child], shared.offsets[child + 1]);
      EXPECT_LT((rows - expected).abs().max().item<double>(), 1e-5) << name;
    }
  }
}

TEST(Transformer, AContinuationSeesAllThatItsParentContinues) {
  const at::NoGradGuard no_grad;
  for (const char* name : {"tiny_llama", "tiny_mistral"}) {
    const Golden golden(name);
    const Transformer model = load_transformer(tiny_model(name), at::kFloat, at::kCPU);
    const auto& whole = golden.sequences[0];
    const auto piece = [&](int begin, int end) {
      return std::vector<int32_t>(whole.begin() + begin, whole.begin() + end);
    };
    const int length = static_cast<int>(whole.size());
    PackedBatch shared = pack_sequences(Sequences{piece(0, 5), piece(5, 8), piece(5, 11), piece(11, length)});
    shared.parent = {-1, 0, 0, 2};
    shared.positions.slice(0, shared.offsets[1], shared.offsets[3]).add_(5);
    shared.positions.slice(0, shared.offsets[3]).add_(11);
    EXPECT_EQ(num_positions(shared), length);
    const auto expected = model.hidden_states(pack_sequences(Sequences{whole})).slice(0, 11);
    const auto hidden = model.hidden_states(shared).slice(0, shared.offsets[3]);
    EXPECT_LT((hidden - expected).abs().max().item<double>(), 1e-5) << name;
  }
}

TEST(Transformer, SmolLm2EqualsTransformers) {
  if (!std::filesystem::exists(smollm2_path())) GTEST_SKIP() << "no " << smollm2_path() << ": run make test";
  const at::NoGradGuard no_grad;
  const Golden golden("smollm2");
  const ModelPackage package = open_model(smollm2_path());
  const Transformer model = load_transformer(package, at::kFloat, at::kCPU);
  const PackedBatch batch = pack_sequences(golden.sequences);
  const double error = golden.error(model.logits(model.hidden_states(batch)), batch.offsets);
  RecordProperty("max_logit_error", std::to_string(error));
  EXPECT_LT(error, 2e-4);
}

TEST(Transformer, RefusesTokenIdsOutsideTheVocabulary) {
  const Sequences corpus = {{3, 48}};
  try {
    embed_corpus(tiny_model("tiny_llama"), corpus, {});
    FAIL() << "accepted token id 48";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("token id 48"), std::string::npos) << error.what();
  }
}

TEST(Transformer, NamesOfDtypeAndDevice) {
  EXPECT_EQ(compute_dtype("fp32", at::kCPU), at::kFloat);
  EXPECT_EQ(compute_dtype("bf16", at::kCPU), at::kBFloat16);
  EXPECT_THROW(compute_dtype("fp8", at::kCPU), Error);
  EXPECT_EQ(compute_device("cpu"), at::Device(at::kCPU));
  for (const char* wrong : {"gpu", "cuda:", "cuda:x", "cuda:1000", "cuda:-1"})
    EXPECT_THROW(compute_device(wrong), Error);
}

}  // namespace
}  // namespace potstill
