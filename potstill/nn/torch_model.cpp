#include "potstill/nn/torch_model.h"

#include <fmt/format.h>

#include <algorithm>

#include "potstill/base/error.h"
#include "potstill/nn/generator.h"
#include "potstill/nn/scorer.h"
#include "potstill/nn/transformer.h"

namespace potstill {
namespace {

class TorchModel : public LanguageModel {
 public:
  TorchModel(const ModelPackage& package, const TorchModelOptions& options)
      : package_(package), num_slots_(options.num_slots) {
    const at::Device device = compute_device(options.device);
    model_ = load_transformer(package, compute_dtype(options.dtype, device), device);
    model_.pack();
  }

  std::string name() const override {
    return fmt::format("{} ({})", package_.path.filename().string(), model_.dtype() == at::kFloat ? "fp32" : "bf16");
  }

  std::vector<GenerateResult> generate(std::span<const GenerateRequest> requests,
                                       const std::function<void(size_t, const GenerateResult&)>& on_done) override {
    return generate_texts(package_, model_, num_slots_, requests, on_done);
  }

  std::vector<ScoreResult> score(std::span<const ScoreRequest> requests) override {
    return score_continuations(package_, model_, requests);
  }

  std::vector<std::vector<double>> choose(std::span<const ChoiceRequest> requests) override {
    return choose_candidates(package_, model_, requests);
  }

 private:
  ModelPackage package_;
  Transformer model_;
  int64_t num_slots_;
};

}  // namespace

std::unique_ptr<LanguageModel> make_torch_model(const ModelPackage& model, const TorchModelOptions& options) {
  return std::make_unique<TorchModel>(model, options);
}

}  // namespace potstill
