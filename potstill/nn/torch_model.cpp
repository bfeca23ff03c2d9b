#include "potstill/nn/torch_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

#include "potstill/base/error.h"
#include "potstill/nn/generator.h"
#include "potstill/nn/loaded_model.h"
#include "potstill/nn/scorer.h"
#include "potstill/nn/transformer.h"

namespace potstill {
namespace {

class TorchModel : public LanguageModel {
 public:
  TorchModel(const ModelPackage& package, Transformer model, std::string name, int64_t num_slots)
      : package_(package), model_(std::move(model)), name_(std::move(name)), num_slots_(num_slots) {}

  std::string name() const override { return name_; }

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
  std::string name_;
  int64_t num_slots_;
};

}  // namespace

std::unique_ptr<LanguageModel> make_torch_model(const ModelPackage& model, const TorchModelOptions& options) {
  const at::Device device = compute_device(options.device);
  Transformer loaded = load_transformer(model, compute_dtype(options.dtype, device), device);
  loaded.pack();
  std::string name =
      fmt::format("{} ({})", model.path.filename().string(), loaded.dtype() == at::kFloat ? "fp32" : "bf16");
  return make_loaded_model(model, std::move(loaded), std::move(name), options.num_slots);
}

std::unique_ptr<LanguageModel> make_loaded_model(const ModelPackage& package, Transformer model, std::string name,
                                                 int64_t num_slots) {
  return std::make_unique<TorchModel>(package, std::move(model), std::move(name), num_slots);
}

}  // namespace potstill
