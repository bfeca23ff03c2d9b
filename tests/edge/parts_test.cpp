// The edge runtime's smaller parts: weights bound by name, the cache, the threads, stop strings.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "potstill/base/error.h"
#include "potstill/edge/edge_weights.h"
#include "potstill/edge/kv_cache.h"
#include "potstill/edge/stop_strings.h"
#include "potstill/edge/thread_pool.h"

namespace potstill::edge {
namespace {

const std::filesystem::path kTiny = std::filesystem::path(POTSTILL_SOURCE_DIR) / "tests/golden/edge/tiny_llama.gguf";

// The tiny model written again with some tensors left out, renamed or changed.
class BrokenModel {
 public:
  explicit BrokenModel(const std::function<bool(TensorView&)>& edit)
      : path_(testing::TempDir() + "/broken_" + std::to_string(::getpid()) + ".gguf") {
    const GgufFile source(kTiny);
    std::vector<TensorView> tensors;
    std::vector<TensorSpec> specs;
    for (TensorView tensor : source.tensors()) {
      if (!edit(tensor)) continue;
      tensors.push_back(tensor);
      specs.push_back({.name = tensor.name, .dtype = tensor.dtype, .shape = tensor.shape});
    }
    GgufWriter writer(path_, source.metadata(), specs);
    for (const auto& tensor : tensors) writer.append(tensor.name, tensor.bytes);
    writer.finish();
  }
  ~BrokenModel() { std::filesystem::remove(path_); }

  std::string error() const {
    try {
      bind_weights(GgufFile(path_));
    } catch (const Error& error) {
      return error.what();
    }
    return {};
  }

 private:
  std::filesystem::path path_;
};

TEST(EdgeWeights, BindsTheWholeFileUnchanged) {
  EXPECT_EQ(BrokenModel([](TensorView&) { return true; }).error(), "");
}

TEST(EdgeWeights, RefusesAMissingTensorByName) {
  const auto error = BrokenModel([](TensorView& tensor) { return tensor.name != "blk.1.ffn_up.weight"; }).error();
  EXPECT_NE(error.find("blk.1.ffn_up.weight"), std::string::npos) << error;
}

TEST(EdgeWeights, RefusesATensorThatNoPartOfTheModelAskedFor) {
  const auto error = BrokenModel([](TensorView& tensor) {
                       if (tensor.name == "rope_freqs.weight") tensor.name = "blk.0.attn_sinks.weight";
                       return true;
                     }).error();
  EXPECT_NE(error.find("attn_sinks"), std::string::npos) << error;
}

TEST(EdgeWeights, RefusesAShapeThatTheConfigDoesNotSay) {
  const auto error = BrokenModel([](TensorView& tensor) {
                       if (tensor.name == "blk.0.ffn_gate.weight") std::swap(tensor.shape[0], tensor.shape[1]);
                       return true;
                     }).error();
  EXPECT_NE(error.find("blk.0.ffn_gate.weight"), std::string::npos) << error;
}

TEST(KvCache, KeepsEveryHeadsPositionsApart) {
  ModelConfig config;
  config.num_hidden_layers = 3;
  config.num_key_value_heads = 2;
  config.head_dim = 24;  // rounded up to 32 for the lanes
  for (const auto type : {kernels::KvType::kHalf, kernels::KvType::kByte}) {
    KvCache cache(config, 100, type);
    const size_t position = type == kernels::KvType::kHalf ? 32 * 2 : 32 + 2;  // codes, and a scale for each 32
    EXPECT_EQ(cache.layout().stride, 32);
    EXPECT_EQ(cache.bytes_per_position(), 3u * 2 * 2 * position);
    std::vector<std::pair<const std::byte*, const std::byte*>> spans;
    for (int64_t layer = 0; layer < 3; ++layer) {
      for (int64_t head = 0; head < 2; ++head) {
        for (std::byte* start : {cache.keys(layer, head), cache.values(layer, head)}) {
          spans.emplace_back(start, start + 112 * position);  // capacity rounded up to 16 positions
          *start = std::byte{1};                              // writable
          start[112 * position - 1] = std::byte{1};
        }
      }
    }
    std::sort(spans.begin(), spans.end());
    for (size_t i = 1; i < spans.size(); ++i) EXPECT_LE(spans[i - 1].second, spans[i].first);
  }
}

TEST(KvCache, CopiesABeginningOfEveryHead) {
  ModelConfig config;
  config.num_hidden_layers = 2;
  config.num_key_value_heads = 3;
  config.head_dim = 16;
  KvCache from(config, 64), to(config, 40);
  const auto fill = [](KvCache& cache, int start) {
    const auto bytes = static_cast<size_t>(cache.layout().group_bytes() * 2);  // of 32 positions
    for (int64_t i = 0; i < 6; ++i) {
      std::fill_n(cache.keys(i / 3, i % 3), bytes, static_cast<std::byte>(start + 2 * i));
      std::fill_n(cache.values(i / 3, i % 3), bytes, static_cast<std::byte>(start + 2 * i + 1));
    }
    cache.set_length(32);
  };
  fill(from, 1);
  fill(to, 101);
  to.copy_beginning(from, 10);
  EXPECT_EQ(to.length(), 10);
  for (int64_t i = 0; i < 6; ++i) {
    EXPECT_EQ(to.keys(i / 3, i % 3)[0], static_cast<std::byte>(1 + 2 * i));
    EXPECT_EQ(to.values(i / 3, i % 3)[9 * 32], static_cast<std::byte>(2 + 2 * i));
    EXPECT_EQ(to.values(i / 3, i % 3)[16 * 32], static_cast<std::byte>(102 + 2 * i)) << "more than was asked";
  }
}

TEST(ThreadPool, DoesEveryPieceOnceAndReturnsWhenAllAreDone) {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 2000; ++round) {
      const int64_t count = round % 37;
      std::vector<std::atomic<int>> done(40);
      pool.parallel_for(count, 1 + round % 4, [&](int64_t begin, int64_t end, int thread) {
        EXPECT_LT(thread, threads);
        for (int64_t i = begin; i < end; ++i) done[static_cast<size_t>(i)].fetch_add(1);
      });
      for (int64_t i = 0; i < 40; ++i) ASSERT_EQ(done[static_cast<size_t>(i)].load(), i < count ? 1 : 0);
      if (round % 500 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(3));  // workers fall asleep
    }
  }
}

TEST(StopStrings, CutsBeforeTheFirstOneHoweverThePiecesAreTorn) {
  const std::string text = "Answer: 42\n\nQuestion: ...";
  for (size_t size = 1; size <= text.size(); ++size) {
    StopStrings stops({"Question:", "\n\nQ", ""});
    std::string out;
    for (size_t i = 0; i < text.size() && !stops.found(); i += size) out += stops.push(text.substr(i, size));
    EXPECT_TRUE(stops.found());
    EXPECT_EQ(out, "Answer: 42") << "pieces of " << size;
  }
}

TEST(StopStrings, GivesBackWhatOnlyLookedLikeOne) {
  StopStrings stops({"</s>"});
  EXPECT_EQ(stops.push("a < b </"), "a < b ");
  EXPECT_EQ(stops.push("b>"), "</b>");
  EXPECT_EQ(stops.push("<"), "");
  EXPECT_EQ(stops.finish(), "<");
  EXPECT_FALSE(stops.found());
}

}  // namespace
}  // namespace potstill::edge
