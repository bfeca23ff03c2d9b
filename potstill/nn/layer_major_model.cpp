#include "potstill/nn/layer_major_model.h"

#include <fmt/format.h>

#include "potstill/base/error.h"
#include "potstill/nn/scorer.h"

namespace potstill {
namespace {

class LayerMajorModel : public LanguageModel {
 public:
  LayerMajorModel(const ModelPackage& package, const LayerStreamOptions& options)
      : package_(package), options_(options) {}

  std::string name() const override {
    return fmt::format("{} ({})", package_.path.filename().string(), options_.dtype == at::kFloat ? "fp32" : "bf16");
  }
  std::vector<GenerateResult> generate(std::span<const GenerateRequest>,
                                       const std::function<void(size_t, const GenerateResult&)>&) override {
    refuse();
  }
  std::vector<ScoreResult> score(std::span<const ScoreRequest> requests) override {
    return score_layer_major(package_, requests, options_);
  }
  std::vector<std::vector<double>> choose(std::span<const ChoiceRequest>) override { refuse(); }

 private:
  [[noreturn]] void refuse() const {
    throw Error(ErrorKind::kUsage, package_.path.string(), "is run layer by layer, which scores texts and writes none",
                "a token at a time would read all of the weights for each");
  }
  ModelPackage package_;
  LayerStreamOptions options_;
};

}  // namespace

std::unique_ptr<LanguageModel> make_layer_major_model(const ModelPackage& package, const LayerStreamOptions& options) {
  return std::make_unique<LayerMajorModel>(package, options);
}

}  // namespace potstill
