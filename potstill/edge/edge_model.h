// EdgeModel: a GGUF file, or a W4A16 folder, as a LanguageModel, without LibTorch.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "potstill/edge/forward.h"
#include "potstill/lm/language_model.h"
#include "potstill/lm/model_package.h"
#include "potstill/lm/sampling.h"
#include "potstill/lm/schema_constraints.h"

namespace potstill::edge {

enum class Repack { kNo, kYes, kWhereItPays };  // see repack.h

struct EdgeOptions {
  int threads = 0;      // 0 = one a CPU
  int64_t context = 0;  // positions; 0 = the model's own maximum
  ActivationMode activations = ActivationMode::kExact;
  Repack repack = Repack::kNo;
  kernels::KvType kv_cache = kernels::KvType::kHalf;
};

uint64_t model_bytes(const std::filesystem::path& path);  // of a file, or of the weights in a folder

class EdgeModel : public LanguageModel {
 public:
  // Maps a GGUF file or the weights of a Hugging Face folder; weights are read when a product first needs them. Throws
  // Error(kIo | kFormat | kInput | kUsage).
  explicit EdgeModel(const std::filesystem::path& path, const EdgeOptions& options = {});

  // Called with each piece of text as it is certain; false stops the answer (finish: kStop).
  using OnText = std::function<bool(std::string_view piece)>;
  // Continues from whatever the cache shares with the prompt, so that a turn of a chat costs its own tokens alone.
  GenerateResult generate_streaming(const GenerateRequest& request, const OnText& on_text);

  // One request after the other. What the last request left in the cache is used only as far as it was computed the way
  // that this prompt would be, so that a text does not depend on its neighbours.
  std::string name() const override { return name_; }
  std::vector<GenerateResult> generate(std::span<const GenerateRequest> requests,
                                       const std::function<void(size_t, const GenerateResult&)>& on_done = {}) override;
  std::vector<ScoreResult> score(std::span<const ScoreRequest> requests) override;
  std::vector<std::vector<double>> choose(std::span<const ChoiceRequest> requests) override;

  const ModelPackage& package() const { return package_; }
  const ModelConfig& config() const { return weights_.config; }
  const EdgeWeights& weights() const { return weights_; }
  KvCache& cache() { return cache_; }
  const KvCache& cache() const { return cache_; }
  Forward& forward() { return forward_; }
  int threads() const { return pool_.size(); }

 private:
  enum class Reuse { kAll, kSameArithmetic };
  std::span<const float> run_prompt(const std::vector<TokenId>& tokens, Reuse reuse);
  GenerateResult generate_one(const GenerateRequest& request, Reuse reuse, const OnText& on_text);
  ScoreResult score_one(const ScoreRequest& request);

  ModelPackage package_;
  EdgeWeights weights_;
  std::string name_;
  ThreadPool pool_;
  Forward forward_;
  KvCache cache_;
  std::vector<TokenId> cached_;  // ids of the cache's positions
  size_t cached_as_prompt_ = 0;  // how many of them, from the start, went through Forward::prompt
  std::vector<TokenId> stop_ids_;
  SchemaConstraints schemas_;
};

}  // namespace potstill::edge
